"""Reads the rows of one file of the archive, and of its row groups only those that are needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from store.archive.layout import Range
from store.archive.schema import READ_ROWS


class Columns(NamedTuple):
    """What to read of each row."""

    names: Sequence[str]
    encoded: Sequence[str] = ()
    """Text columns to read as dictionaries."""


def read_file(
    filesystem: pafs.FileSystem, file: Range, low: int, high: int, columns: Columns
) -> Iterator[pa.Table]:
    """The rows at the offsets [low, high), in tables of at most READ_ROWS rows.

    Raises OSError, pa.ArrowException, KeyError, ValueError.
    """
    is_partial = file.first < low or file.next > high
    names = columns.names
    loaded = [*names, "offset"] if is_partial and "offset" not in names else names
    with pq.ParquetFile(
        file.path,
        filesystem=filesystem,
        read_dictionary=columns.encoded,
        page_checksum_verification=True,
    ) as parquet:
        groups: Iterable[int] = range(parquet.num_row_groups)
        if is_partial:
            groups = [group for group in groups if _overlaps(parquet, group, "offset", low, high)]
        for group in groups:
            for batch in parquet.iter_batches(READ_ROWS, row_groups=[group], columns=loaded):
                table = pa.Table.from_batches([batch])
                if is_partial:
                    offsets = table.column("offset").to_numpy()
                    begin, end = (int(offsets.searchsorted(limit)) for limit in (low, high))
                    table = table.slice(begin, max(0, end - begin))
                if table.num_rows:
                    yield table.select(names).replace_schema_metadata(None)


def first_offset_at(filesystem: pafs.FileSystem, file: Range, time: float) -> int | None:
    """The first offset whose broker time is `time` (seconds since 1970) or later; None: no such.

    Reads the footer, and two columns of the row groups that may have it. Raises as `read_file`.
    """
    with pq.ParquetFile(file.path, filesystem=filesystem) as parquet:
        for group in range(parquet.num_row_groups):
            if _overlaps(parquet, group, "broker_time", time, math.inf):
                rows = parquet.read_row_group(group, columns=["offset", "broker_time"])
                late = np.flatnonzero(rows["broker_time"].to_numpy() >= time)
                if late.size:
                    return int(rows["offset"][late[0]].as_py())
    return None


def _overlaps(parquet: pq.ParquetFile, group: int, name: str, low: float, high: float) -> bool:
    """Whether a row group may have values in [low, high), by the statistics of the column."""
    column = parquet.metadata.row_group(group).column(parquet.schema_arrow.names.index(name))
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min < high and statistics.max >= low)
