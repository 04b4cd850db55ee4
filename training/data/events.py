"""Where the events of a training set come from: the archive up to positions W, or a Parquet or CSV file.

Both give a table of the columns COLUMNS in log order: what a user did, one row an accepted event. An event that the stream would not
count is not here either: dead letters, duplicates within the window, and what a deleted user did before the deletion.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from core.codec import MAX_VALUE
from core.dedup import Dedup
from core.errors import ArchiveError, DatasetError
from store.archive.layout import Archive
from store.state.apply.deletions import DeletedUsers
from training.progress import progress

COLUMNS = ("user_id", "item_id", "event_type", "value", "timestamp", "use_case")
_OPTIONAL = {"value": pa.float64(), "use_case": pa.string()}
_ARCHIVED = ["offset", "broker_time", "event_id", *COLUMNS, "error"]
_ENCODED = ("user_id", "item_id", "event_type", "use_case")
"""Columns that repeat few texts: taken as the dictionaries that Parquet holds, none is made into a text."""
_ID = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [("user_id", _ID), ("item_id", _ID), ("event_type", _ID), ("value", pa.float64()), ("timestamp", pa.float64()), ("use_case", _ID)]
)

AT_ONCE = 2
"""Partitions read at once: reading and encoding leave Python's lock, and each holds its event ids in memory until it is done."""

Skipped = dict[str, int]
"""Why rows were left out -> how many."""


def from_archive(
    archive: Archive, topic: str, positions: Mapping[int, int], dedup_window: int, deleted: DeletedUsers
) -> tuple[pa.Table, Skipped]:
    """Every event that counts, of the offsets below `positions` (partition -> offset), partition by partition in offset order.

    `deleted`: whose events up to the deletion do not count. Memory: the result, and AT_ONCE partitions with their event ids.
    Raises ArchiveError when the archive does not reach `positions`.
    """
    ranges = archive.ranges(topic)
    for partition, position in positions.items():
        if position and partition not in ranges:
            raise ArchiveError(f"the archive holds nothing of partition {partition} of {topic}; run `python -m streams archive` first")

    with progress("reading the archive", total=max(1, sum(positions.values()))) as show, ThreadPoolExecutor(AT_ONCE) as pool:

        def read(partition: int) -> tuple[pa.Table, Skipped] | None:
            tables = []
            for table in archive.read(topic, {partition: positions[partition]}, _ARCHIVED, encoded=_ENCODED):
                tables.append(table)
                show.advance(table.num_rows, f"partition {partition}")
            return _counted(pa.concat_tables(tables), dedup_window, deleted) if tables else None

        parts = [part for part in pool.map(read, sorted(partition for partition in positions if positions[partition])) if part is not None]
    skipped: Skipped = {name: sum(left_out[name] for _, left_out in parts) for name in ("dead_letters", "duplicates", "deleted_users")}
    kept = [table for table, _ in parts]
    return (pa.concat_tables(kept) if kept else SCHEMA.empty_table()), skipped


def _counted(table: pa.Table, dedup_window: int, deleted: DeletedUsers) -> tuple[pa.Table, Skipped]:
    """The rows of one whole partition that count, and how many others. Dead letters take no part in what is a duplicate."""
    dead_letters = table.num_rows - table["error"].null_count
    valid = table.filter(pc.is_null(table["error"])) if dead_letters else table
    first = ~_duplicates(valid, dedup_window)
    gone = _before_deletion(valid, deleted)
    left_out = {
        "dead_letters": dead_letters,
        "duplicates": int((~first).sum()),
        "deleted_users": int((gone & first).sum()),
    }
    kept = first & ~gone
    counted = valid.select(COLUMNS)
    return (counted if kept.all() else counted.filter(pa.array(kept))).cast(SCHEMA), left_out


def from_file(path: Path) -> tuple[pa.Table, Skipped]:
    """The events in a Parquet or CSV file with the columns user_id, item_id, event_type, timestamp (seconds since 1970, or null) and
    optionally value and use_case; further columns are ignored. Rows are put in time order, rows without a time first, ties as they stand
    in the file.

    Raises DatasetError naming the file and what is wrong with it.
    """
    try:
        if path.suffix == ".csv":
            texts = {name: pa.string() for name in COLUMNS if SCHEMA.field(name).type == _ID}
            raw = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=texts))
        else:
            raw = pq.read_table(path, columns=[name for name in pq.read_schema(path).names if name in COLUMNS])
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as {'CSV' if path.suffix == '.csv' else 'Parquet'}: {error}") from None
    missing = [name for name in COLUMNS if name not in raw.column_names and name not in _OPTIONAL]
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)} (the last and value may be missing)")
    columns = {
        name: raw[name] if name in raw.column_names else pa.chunked_array([pa.nulls(raw.num_rows, _OPTIONAL[name])]) for name in COLUMNS
    }
    if pa.types.is_temporal(columns["timestamp"].type):
        columns["timestamp"] = pc.divide(columns["timestamp"].cast(pa.timestamp("ms")).cast(pa.int64()).cast(pa.float64()), 1000.0)
    try:
        table = pa.table(
            {
                name: column.cast(pa.string()) if SCHEMA.field(name).type == _ID else column.cast(pa.float64())
                for name, column in columns.items()
            }
        ).cast(SCHEMA)
    except pa.ArrowException as error:
        raise DatasetError(f"{path}: a column has a type that is not its own: {error}") from None
    named = pc.and_(pc.and_(pc.is_valid(table["user_id"]), pc.is_valid(table["item_id"])), pc.is_valid(table["event_type"]))
    valid = table.filter(named)
    in_range = pc.and_(pc.greater_equal(valid["value"], 0.0), pc.less_equal(valid["value"], MAX_VALUE))
    sound = valid.filter(pc.or_(pc.is_null(valid["value"], nan_is_null=True), pc.fill_null(in_range, False)))
    order = pc.sort_indices(pc.fill_null(sound["timestamp"], -np.inf))
    return sound.take(order), {"rows_without_an_id": table.num_rows - valid.num_rows, "bad_values": valid.num_rows - sound.num_rows}


def _duplicates(table: pa.Table, window: int) -> npt.NDArray[np.bool_]:
    """Which rows repeat an event id. Only ids that occur twice are asked about: the answer for one id does not depend on others."""
    # One chunk first: merging the chunks' dictionaries of ids that hardly repeat costs four times as much. Large: more than 2 GB of ids.
    ids = table["event_id"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    repeated = np.zeros(table.num_rows, dtype=np.bool_)
    if not table.num_rows:
        return repeated
    codes = ids.indices.to_numpy()
    suspects = np.flatnonzero(np.bincount(codes)[codes] > 1)
    names, offsets, dedup = ids.dictionary, table["offset"].to_numpy(), Dedup(window)
    for row in suspects.tolist():
        repeated[row] = dedup.seen(names[codes[row]].as_py(), int(offsets[row]))
    return repeated


def _before_deletion(table: pa.Table, deleted: DeletedUsers) -> npt.NDArray[np.bool_]:
    """Which rows are not after the deletion of their user. Only users with a row as old as a deletion are hashed."""
    broker_times = table["broker_time"].to_numpy()
    gone: npt.NDArray[np.bool_] = broker_times <= deleted.newest
    old = np.flatnonzero(gone)
    if old.size:
        users = table["user_id"].take(pa.array(old)).cast(pa.string()).combine_chunks().dictionary_encode()
        times = np.array([deleted.time_of(user_id) for user_id in users.dictionary.to_pylist()])
        gone[old] = broker_times[old] <= times[users.indices.to_numpy()]
    return gone
