"""Runs `tune` on a small dataset."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from core.settings import Settings
from training import commands
from training.tuning.options import Part, TuneOptions

USERS = 240


def tune_part(
    settings: Settings, folder: Path, part: Part, minutes: float = 60.0, trials: int = 1
) -> tuple[dict[str, Any], str]:
    """Tunes `part` on the dataset in `folder`.

    Returns the sections of the output file, and what the terminal shows, on one line.
    """
    console, output = Console(file=io.StringIO(), width=200), folder / "hyperparameters.json"
    options = TuneOptions(folder / "study.sqlite", output, minutes, trials, threads=1)
    commands.tune(settings, part, folder / "dataset", folder / "items.jsonl", options, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    sections = json.loads(output.read_text("utf-8")) if output.exists() else {}
    return sections, printed.replace("\n", " ")
