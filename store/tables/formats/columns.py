"""Reads files of Arrow's world: Parquet, Arrow IPC files and streams, and Feather."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.tables.formats.detect import FileKind
from store.tables.options import Options
from store.tables.rows import BATCH, RawBatch, Report
from store.tables.source import Part, reading

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class ColumnsPart:
    """One file of columns. Row numbers count from 1."""

    layout: str | None = None
    notes: Sequence[str] = ()

    def __init__(self, part: Part, _options: Options, kind: FileKind) -> None:
        """Raises SourceFailed."""
        self._part, self._kind = part, kind
        self.last_number = 0
        self.row_count: int | None = None
        with self._opened() as (file, stack):
            if kind == "parquet":
                parquet = stack.enter_context(pq.ParquetFile(file))
                self.columns: Sequence[str] = parquet.schema_arrow.names
                self.row_count = parquet.metadata.num_rows
            else:
                self.columns = _reader(kind, file).schema.names

    def batches(self, columns: Sequence[str], _report: Report) -> Iterator[RawBatch]:
        """Values as Python objects, times as seconds since 1970; absent columns are None."""
        present = [name for name in dict.fromkeys(columns) if name in self.columns]
        with self._opened() as (file, _):
            first = 1
            for batch in self._record_batches(file, present):
                seconds: set[str] = set()
                values: dict[str, Sequence[Any]] = {}
                for name in present:
                    column = batch.column(batch.schema.get_field_index(name))
                    if pa.types.is_timestamp(column.type):
                        seconds.add(name)
                        column = pc.divide(
                            column.cast(pa.int64()).cast(pa.float64(), safe=False),
                            _PER_SECOND[column.type.unit],
                        )
                    values[name] = column.to_pylist()
                nothing = [None] * batch.num_rows
                self.last_number = first + batch.num_rows - 1
                yield RawBatch(
                    range(first, first + batch.num_rows),
                    [values.get(name, nothing) for name in columns],
                    frozenset(seconds),
                )
                first += batch.num_rows

    def _record_batches(self, file: BinaryIO, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if self._kind == "parquet":
            with pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(BATCH, columns=columns)
            return
        reader = _reader(self._kind, file)
        count = reader.num_record_batches if self._kind == "arrow" else None
        batches = reader if count is None else map(reader.get_batch, range(count))
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH):
                yield batch.select(columns).slice(start, BATCH)

    @contextmanager
    def _opened(self) -> Iterator[tuple[BinaryIO, ExitStack]]:
        with ExitStack() as stack, self._part.open_seekable() as file, reading(self._part.shown):
            yield file, stack


def _reader(kind: FileKind, file: BinaryIO) -> Any:
    return pa.ipc.open_file(file) if kind == "arrow" else pa.ipc.open_stream(file)
