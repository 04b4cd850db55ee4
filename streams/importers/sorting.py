"""Puts the messages of an import in the order of their times, in bounded memory.

Messages are collected up to a limit, sorted, and written to a temporary file, a run; at the end the
runs are merged. A source below the limit touches no disk.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from operator import itemgetter
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import SourceFailed
from streams.importers.convert import Message

_SCHEMA = pa.schema([("key", pa.binary()), ("value", pa.binary()), ("timestamp", pa.float64())])
_ROWS = 1_000
"""Messages of each run that are in memory while the runs are merged."""


class TimeOrder(AbstractContextManager["TimeOrder"]):
    """Messages by time, those of one time in the order in which they were added.

    `count`: of the messages. `runs`: files that were written.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of messages in memory; sorting them takes about twice as many."""
        self._limit = limit
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._files: list[BinaryIO] = []
        self._stack = ExitStack()
        self.count = 0

    @property
    def runs(self) -> int:
        """The number of temporary files."""
        return len(self._files)

    def add(self, messages: Sequence[Message]) -> None:
        """Add messages. Raises SourceFailed when the temporary files have no room."""
        columns = list(zip(*messages, strict=True)) or [()] * len(_SCHEMA)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)
        self._batches.append(batch)
        self._bytes += batch.nbytes
        self.count += len(messages)
        if self._bytes >= self._limit:
            self._spill()

    def chunks(self, size: int) -> Iterator[list[Message]]:
        """All messages, once, `size` at a time."""
        # heapq.merge is stable: of equal times, those of the earlier run come first
        runs = [*map(_stored, self._files), _rows(self._sorted().to_batches(_ROWS))]
        messages = heapq.merge(*runs, key=itemgetter(2)) if self._files else runs[0]
        while chunk := list(islice(messages, size)):
            yield chunk

    def _spill(self) -> None:
        """Write what is in memory to a file that goes with the process, however it ends."""
        try:
            file = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - it does
            with pa.ipc.new_stream(file, _SCHEMA) as writer:
                writer.write_table(self._sorted(), _ROWS)
        except OSError as error:
            raise SourceFailed(
                f"the messages cannot be sorted in {tempfile.gettempdir()}: {error.strerror}; name "
                f"a folder with more room by TMPDIR, or import with --no-sort"
            ) from None
        self._files.append(file)

    def _sorted(self) -> pa.Table:
        """What is in memory, by time; it is forgotten."""
        table = pa.Table.from_batches(self._batches, _SCHEMA)
        self._batches, self._bytes = [], 0
        return table.take(pc.sort_indices(table, [("timestamp", "ascending")]))  # a stable sort

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _stored(file: BinaryIO) -> Iterator[Message]:
    file.seek(0)
    return _rows(pa.ipc.open_stream(file))


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[Message]:
    for batch in batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
