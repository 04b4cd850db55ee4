"""Collects the rows of one partition until they are published as one file."""

from __future__ import annotations

import time

import pyarrow as pa

from core.settings import Settings
from store.archive.schema import SCHEMA

BUFFER_BYTES = 64 * 1024 * 1024
"""Bytes at which a buffer is full, however few its rows are: contexts may be large."""


class Buffer:
    """Rows of the offset range [first, next), which may hold fewer rows than offsets."""

    def __init__(self, first: int) -> None:
        self.first = self.next = first
        self.rows = self.bytes = 0
        self.read_at = time.monotonic()
        """time.monotonic() at which the range was last extended."""
        self._batches: list[pa.RecordBatch] = []
        self._began = self.read_at

    @property
    def pending(self) -> bool:
        """Whether there is a range to publish, with rows or without."""
        return self.next > self.first

    def is_full(self, settings: Settings) -> bool:
        """Whether it reached ARCHIVE_FILE_EVENTS or BUFFER_BYTES."""
        return self.rows >= settings.archive_file_events or self.bytes >= BUFFER_BYTES

    def is_due(self, settings: Settings, now: float) -> bool:
        """Whether its range began ARCHIVE_FILE_S before `now` (time.monotonic())."""
        return self.pending and now - self._began >= settings.archive_file_s

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows whose offsets follow those in the buffer."""
        self._batches.append(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        self.extend(batch.column("offset")[-1].as_py() + 1)

    def extend(self, next_: int) -> None:
        """Let the range end before `next_`."""
        now = time.monotonic()
        if not self.pending:
            self._began = now
        self.next, self.read_at = next_, now

    def table(self) -> pa.Table:
        """All rows, in offset order."""
        return pa.Table.from_batches(self._batches, SCHEMA)
