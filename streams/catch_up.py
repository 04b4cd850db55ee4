"""Waits until Redis and the archive have what the log has: `streams inspect positions --wait`."""

from __future__ import annotations

import time
from typing import Any

import typer

from core.settings import Settings
from streams.inspection.views import partition_positions

LOOK_S = 1.0
"""Seconds between two looks at the positions."""


def wait(settings: Settings) -> list[dict[str, Any]]:
    """The positions, once Redis and the archive have everything that the log has now.

    Says on stderr what it waits for. Raises LogUnavailable, StoreUnavailable, ArchiveError.
    """
    rows = partition_positions(settings)
    ends = {(row["topic"], row["partition"]): row["log_ends"] for row in rows}
    reported = None
    while behind := _behind(rows, ends):
        if behind != reported:
            typer.echo(f"waiting for {behind}", err=True)
        reported = behind
        time.sleep(LOOK_S)
        rows = partition_positions(settings)
    return rows


def _behind(rows: list[dict[str, Any]], ends: dict[tuple[str, int], int]) -> str:
    """What Redis and the archive lack of the log as it ends at `ends`; empty: nothing."""
    lags = {
        part: sum(
            max(0, ends.get((row["topic"], row["partition"]), 0) - row[part])
            for row in rows
            if row[part] is not None
        )
        for part in ("redis", "archive")
    }
    return ", ".join(f"{lag:,} messages into {part}" for part, lag in lags.items() if lag)
