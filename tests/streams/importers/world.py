"""Runs imports and reads back what they sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from core.settings import Settings
from testing.process import ROOT, settings_environment
from tests.topics import messages


def sent(settings: Settings, topic: str | None = None) -> list[dict[str, Any]]:
    """Every message of a topic, decoded, in the order of each partition."""
    topic = topic or settings.interactions_topic
    return [msgspec.json.decode(message.value()) for message in messages(settings, topic)]


def with_one_partition(settings: Settings) -> Settings:
    """Settings with which the log has one order."""
    return settings.model_copy(update={"topic_partitions": 1})


def essential_fields(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """User, item, event type, timestamp and value of each event."""
    return [
        (
            event["user_id"],
            event["item_id"],
            event["event_type"],
            event["timestamp"],
            event.get("value"),
        )
        for event in events
    ]


def import_command(file: Path, *options: str) -> list[str]:
    """The command that imports `file`, with its rejects beside it."""
    rejects = str(file.parent / "rejects.jsonl")
    return [
        *(sys.executable, "-m", "streams", "import", str(file)),
        *("--rejects", rejects, *options),
    ]


def run_import(settings: Settings, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Import `file` in a process, with a wide terminal."""
    return subprocess.run(
        import_command(file, *options),
        env={**settings_environment(settings), "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
