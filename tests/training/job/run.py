"""Runs retrains in this process, and `python -m training` in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

from rich.console import Console

from core.settings import Settings
from testing.process import ROOT, settings_environment
from training.job.retrain import Options, retrain


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, **settings_environment(settings), "COLUMNS": "200"}


def run(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m training ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT,
        env=environment(settings),
        text=True,
        capture_output=True,
    )


def published(settings: Settings, **options: Any) -> str:
    """The version that a retrain in this process makes live."""
    return retrain(settings, Options(**options), Console(file=io.StringIO()))
