"""Reads the events of a training set from the archive or from a file.

The archive is read up to positions W; a file is Parquet or CSV.

Both give a table of the columns COLUMNS in log order, one row an accepted event. Events that ingest
does not count are skipped: dead letters, duplicates within the window, and events of deleted users
before the deletion.
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
from store.archive.archive import Archive
from store.state.apply.deletions import DeletedUsers
from training.progress import progress

COLUMNS = ("user_id", "item_id", "event_type", "value", "timestamp", "use_case")
_OPTIONAL = {"value": pa.float64(), "use_case": pa.string()}
_ARCHIVED = ["offset", "broker_time", "event_id", *COLUMNS, "error"]
_ENCODED = ("user_id", "item_id", "event_type", "use_case")
"""Columns with few distinct texts: read as Parquet dictionaries, without making texts."""
_ID = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("user_id", _ID),
        ("item_id", _ID),
        ("event_type", _ID),
        ("value", pa.float64()),
        ("timestamp", pa.float64()),
        ("use_case", _ID),
    ]
)

PARALLEL_PARTITIONS = 2
"""Partitions read in parallel: reading and encoding release the GIL, but each partition holds its
event ids in memory.
"""

Skipped = dict[str, int]
"""Reason -> number of skipped rows."""


def from_archive(
    archive: Archive,
    topic: str,
    positions: Mapping[int, int],
    dedup_window: int,
    deleted: DeletedUsers,
) -> tuple[pa.Table, Skipped]:
    """Read the accepted events at offsets below `positions` (partition -> offset).

    They come by partition in offset order.

    `deleted`: users whose events up to the deletion are skipped.
    Memory: the result, and PARALLEL_PARTITIONS partitions with their event ids.
    Raises ArchiveError when the archive does not reach `positions`.
    """
    ranges = archive.ranges(topic)
    for partition, position in positions.items():
        if position and partition not in ranges:
            raise ArchiveError(
                f"the archive holds nothing of partition {partition} of {topic}; run "
                f"`python -m streams archive` first"
            )

    with (
        progress("reading the archive", total=max(1, sum(positions.values()))) as show,
        ThreadPoolExecutor(PARALLEL_PARTITIONS) as pool,
    ):

        def read(partition: int) -> tuple[pa.Table, Skipped] | None:
            tables = []
            for table in archive.read(
                topic, {partition: positions[partition]}, _ARCHIVED, encoded=_ENCODED
            ):
                tables.append(table)
                show.advance(table.num_rows, f"partition {partition}")
            return _accepted(pa.concat_tables(tables), dedup_window, deleted) if tables else None

        parts = [
            part
            for part in pool.map(
                read, sorted(partition for partition in positions if positions[partition])
            )
            if part is not None
        ]
    skipped: Skipped = {
        name: sum(counts[name] for _, counts in parts)
        for name in ("dead_letters", "duplicates", "deleted_users")
    }
    tables = [table for table, _ in parts]
    return (pa.concat_tables(tables) if tables else SCHEMA.empty_table()), skipped


def _accepted(
    table: pa.Table, dedup_window: int, deleted: DeletedUsers
) -> tuple[pa.Table, Skipped]:
    """The accepted rows of one whole partition, and the numbers of skipped ones.

    Dead letters do not make later events duplicates.
    """
    dead_letters = table.num_rows - table["error"].null_count
    valid = table.filter(pc.is_null(table["error"])) if dead_letters else table
    first = ~_duplicates(valid, dedup_window)
    erased = _before_deletion(valid, deleted)
    skipped = {
        "dead_letters": dead_letters,
        "duplicates": int((~first).sum()),
        "deleted_users": int((erased & first).sum()),
    }
    accepted = first & ~erased
    rows = valid.select(COLUMNS)
    return (rows if accepted.all() else rows.filter(pa.array(accepted))).cast(SCHEMA), skipped


def from_file(path: Path) -> tuple[pa.Table, Skipped]:
    """Read the events in a Parquet or CSV file.

    It has the columns user_id, item_id, event_type, timestamp (seconds since 1970, or null) and
    optionally value and use_case; further columns are ignored. The rows are sorted by time, rows
    without a time first, ties in the order of the file.

    Raises DatasetError naming the file and what is wrong with it.
    """
    try:
        if path.suffix == ".csv":
            texts = {name: pa.string() for name in COLUMNS if SCHEMA.field(name).type == _ID}
            raw = pyarrow.csv.read_csv(
                path, convert_options=pyarrow.csv.ConvertOptions(column_types=texts)
            )
        else:
            raw = pq.read_table(
                path, columns=[name for name in pq.read_schema(path).names if name in COLUMNS]
            )
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"{path} cannot be read as {'CSV' if path.suffix == '.csv' else 'Parquet'}: {error}"
        ) from None
    missing = [name for name in COLUMNS if name not in raw.column_names and name not in _OPTIONAL]
    if missing:
        raise DatasetError(
            f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)} (the "
            f"last and value may be missing)"
        )
    columns = {
        name: raw[name]
        if name in raw.column_names
        else pa.chunked_array([pa.nulls(raw.num_rows, _OPTIONAL[name])])
        for name in COLUMNS
    }
    if pa.types.is_temporal(columns["timestamp"].type):
        columns["timestamp"] = pc.divide(
            columns["timestamp"].cast(pa.timestamp("ms")).cast(pa.int64()).cast(pa.float64()),
            1000.0,
        )
    try:
        table = pa.table(
            {
                name: column.cast(pa.string())
                if SCHEMA.field(name).type == _ID
                else column.cast(pa.float64())
                for name, column in columns.items()
            }
        ).cast(SCHEMA)
    except pa.ArrowException as error:
        raise DatasetError(f"{path}: a column has a wrong type: {error}") from None
    named = pc.and_(
        pc.and_(pc.is_valid(table["user_id"]), pc.is_valid(table["item_id"])),
        pc.is_valid(table["event_type"]),
    )
    valid = table.filter(named)
    in_range = pc.and_(
        pc.greater_equal(valid["value"], 0.0), pc.less_equal(valid["value"], MAX_VALUE)
    )
    sound = valid.filter(
        pc.or_(pc.is_null(valid["value"], nan_is_null=True), pc.fill_null(in_range, False))
    )
    order = pc.sort_indices(pc.fill_null(sound["timestamp"], -np.inf))
    return sound.take(order), {
        "rows_without_an_id": table.num_rows - valid.num_rows,
        "bad_values": valid.num_rows - sound.num_rows,
    }


def _duplicates(table: pa.Table, window: int) -> npt.NDArray[np.bool_]:
    """Which rows are duplicates.

    Checks only ids that occur twice, because the result for one id does not depend on others.
    """
    # One chunk first: merging the chunks' dictionaries of ids that hardly repeat costs four times
    # as much. Large: more than 2 GB of ids.
    ids = table["event_id"].cast(pa.large_string()).combine_chunks().dictionary_encode()
    repeated = np.zeros(table.num_rows, dtype=np.bool_)
    if not table.num_rows:
        return repeated
    codes = ids.indices.to_numpy()
    suspects = np.flatnonzero(np.bincount(codes)[codes] > 1)
    names, offsets, dedup = ids.dictionary, table["offset"].to_numpy(), Dedup(window)
    for row in suspects.tolist():
        repeated[row] = dedup.is_duplicate(names[codes[row]].as_py(), int(offsets[row]))
    return repeated


def _before_deletion(table: pa.Table, deleted: DeletedUsers) -> npt.NDArray[np.bool_]:
    """Which rows are not after the deletion of their user.

    Hashes only users with a row as old as the newest deletion.
    """
    broker_times = table["broker_time"].to_numpy()
    erased: npt.NDArray[np.bool_] = broker_times <= deleted.newest
    old = np.flatnonzero(erased)
    if old.size:
        users = (
            table["user_id"]
            .take(pa.array(old))
            .cast(pa.string())
            .combine_chunks()
            .dictionary_encode()
        )
        times = np.array([deleted.time_of(user_id) for user_id in users.dictionary.to_pylist()])
        erased[old] = broker_times[old] <= times[users.indices.to_numpy()]
    return erased
