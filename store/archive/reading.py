"""Reads the rows of one file of the archive, and of its row groups only those that are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

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
            groups = [group for group in groups if _overlaps(parquet, group, low, high)]
        for group in groups:
            for batch in parquet.iter_batches(READ_ROWS, row_groups=[group], columns=loaded):
                table = pa.Table.from_batches([batch])
                if is_partial:
                    offsets = table.column("offset").to_numpy()
                    begin, end = (int(offsets.searchsorted(limit)) for limit in (low, high))
                    table = table.slice(begin, max(0, end - begin))
                if table.num_rows:
                    yield table.select(names).replace_schema_metadata(None)


def _overlaps(parquet: pq.ParquetFile, group: int, low: int, high: int) -> bool:
    """Whether a row group may have offsets in [low, high), by its statistics."""
    column = parquet.metadata.row_group(group).column(parquet.schema_arrow.names.index("offset"))
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min < high and statistics.max >= low)
