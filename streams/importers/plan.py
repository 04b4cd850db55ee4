"""What one import does."""

from __future__ import annotations

from pathlib import Path

import msgspec

from store.tables.options import Options

REJECTS = Path("rejects.jsonl")
"""Default file for the rows that are no valid event."""
MAX_REJECTS = 0.01
"""Default share of rejected rows above which an import fails."""

SORT_BYTES = 128 * 2**20
"""Bytes of messages that are sorted at once."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to import; see the command's --help.

    `path`: a file, a folder or s3://bucket/key. `reading`: what is said about the table. `speed`:
    multiple of the events' own speed; None: as fast as possible. `rejects`: the file for rows that
    are no valid event. `max_rejects`: the share of them above which the import fails. `resume`:
    leave out what a killed import of the same source had sent. `sort_bytes`: of messages that are
    sorted in memory; more are sorted in temporary files.
    """

    path: str | Path | None = None
    database: str | None = None
    table: str | None = None
    reading: Options = Options()
    min_value: float | None = None
    default_timestamp: float | None = None
    speed: float | None = None
    sort: bool = True
    sort_bytes: int = SORT_BYTES
    limit: int | None = None
    rejects: Path = REJECTS
    max_rejects: float = MAX_REJECTS
    resume: bool = False
