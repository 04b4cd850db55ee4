"""Reads the events of a training set from the archive or from a file.

The archive is read up to positions W; a file is Parquet or CSV.

Both give a table of the columns COLUMNS in log order, one row an accepted event. Events that ingest
does not count are skipped: dead letters, duplicates within the window, and events of deleted users
before the deletion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.dedup import Dedup
from core.errors import ArchiveError
from store.archive.archive import Archive
from store.state.apply.deletions import DeletedUsers
from training.data import table_files
from training.data.table_files import Source
from training.progress import progress

COLUMNS = ("user_id", "item_id", "event_type", "value", "timestamp", "use_case")
_FILE_TYPES = {"value": pa.float64(), "timestamp": pa.float64()}
"""Columns of a file that are no text."""
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


def from_file(source: Source) -> tuple[pa.Table, Skipped]:
    """Read the events in a file, a folder or at s3://bucket/key, as `streams import` reads them.

    It has the columns user_id, item_id, event_type and optionally timestamp (seconds since 1970 or
    ISO 8601), value and use_case, or it follows a public layout; further columns are ignored. Rows
    are put in time order, rows without a time first, ties in the order of the file. Rows that
    ingest would refuse are skipped and counted by reason.

    Raises DatasetError, which names the file and what is wrong with it.
    """
    arrays: dict[str, list[pa.Array]] = {name: [] for name in COLUMNS}
    types = {name: _FILE_TYPES.get(name, pa.string()) for name in COLUMNS}
    skipped: Counter[str] = Counter()
    for batch in table_files.valid_rows(source, "interactions", skipped):
        for name, kind in types.items():
            values = batch.fields.get(name)
            arrays[name].append(
                pa.nulls(len(batch.numbers), kind) if values is None else pa.array(values, kind)
            )
    table = pa.table(
        {
            name: pa.chunked_array(chunks, types[name]).cast(SCHEMA.field(name).type)
            if types[name] != pa.string()
            else pa.chunked_array(chunks, pa.string()).dictionary_encode().cast(_ID)
            for name, chunks in arrays.items()
        },
        schema=SCHEMA,
    )
    order = pc.sort_indices(pc.fill_null(table["timestamp"], -np.inf))
    return table.take(order), dict(skipped)


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
