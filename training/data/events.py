"""Reads the events of a training set from the archive or from a file.

The archive is read up to positions W; a file is Parquet or CSV.

Both give tables of the columns COLUMNS in log order, one row an accepted event. Events that ingest
does not count are skipped: dead letters, duplicates within the window, and events of deleted users
before the deletion.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.dedup import Dedup
from store.archive.archive import Archive
from store.archive.schema import READ_ROWS
from store.archive.schema import SCHEMA as ARCHIVED
from store.state.apply.deletions import DeletedUsers
from training.data import table_files
from training.data.table_files import Source
from training.progress import progress

COLUMNS = ("user_id", "item_id", "event_type", "value", "timestamp", "use_case")
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

FILE_SCHEMA = pa.schema(
    [(field.name, pa.string() if field.type == _ID else field.type) for field in SCHEMA]
)
"""SCHEMA with the texts of a file as they are."""

CHUNK_ROWS = 8 * READ_ROWS
"""Rows whose duplicates are looked for at once, unless the window is larger: about 100 MB."""

Skipped = dict[str, int]
"""Reason -> number of skipped rows."""


def from_archive(
    archive: Archive,
    topic: str,
    positions: Mapping[int, int],
    dedup_window: int,
    deleted: DeletedUsers,
    since: float = -math.inf,
) -> tuple[Iterator[pa.Table], Skipped]:
    """The accepted events at offsets below `positions` (partition -> offset), and what is skipped.

    They come by partition in offset order, in tables that are read as they are used: one is in
    memory, and one is made ahead. The numbers of skipped events are complete after the last table.

    `deleted`: users whose events up to the deletion are skipped. `since`: only records with this
    broker time (seconds since 1970) or a later one; the archive is read from the window before
    them on. Raises ArchiveError when the archive does not reach `positions`.
    """
    used = {partition: position for partition, position in sorted(positions.items()) if position}
    start = (
        {
            partition: max(0, archive.first_offset_at(topic, partition, since) - dedup_window)
            for partition in used
        }
        if since > -math.inf
        else {}
    )
    readers = [
        archive.read(topic, {partition: position}, _ARCHIVED, start, encoded=_ENCODED)
        for partition, position in used.items()
    ]
    skipped: Skipped = dict.fromkeys(("dead_letters", "duplicates", "deleted_users"), 0)

    def tables() -> Iterator[pa.Table]:
        with progress("reading the archive", total=max(1, sum(used.values()))) as show:
            for partition, reader in zip(used, readers, strict=True):
                accepted = _Accepted(dedup_window, deleted, since, skipped)
                for chunk in _chunks(reader, max(CHUNK_ROWS, dedup_window)):
                    yield accepted.rows(chunk)
                    show.advance(chunk.num_rows, f"partition {partition}")

    return _made_ahead(tables()), skipped


class _Accepted:
    """The accepted rows of one partition, chunk by chunk.

    Dead letters do not make later events duplicates.
    """

    def __init__(self, window: int, deleted: DeletedUsers, since: float, skipped: Skipped) -> None:
        """`skipped`: to count in."""
        self._window, self._deleted = window, deleted
        self._since, self._skipped = since, skipped
        self._latest = pa.schema(map(ARCHIVED.field, ("event_id", "offset"))).empty_table()

    def rows(self, chunk: pa.Table) -> pa.Table:
        """The accepted rows of the chunk that follows the last one."""
        is_event = pc.is_null(chunk["error"]).to_numpy()
        valid = chunk if is_event.all() else chunk.filter(pa.array(is_event))
        ids = pa.concat_tables([self._latest, valid.select(self._latest.column_names)])
        first = ~_duplicates(ids, self._window)[self._latest.num_rows :]
        if ids.num_rows:
            offsets = ids["offset"].to_numpy()
            self._latest = ids.slice(int(offsets.searchsorted(offsets[-1] - self._window)))
        erased = _before_deletion(valid, self._deleted)
        is_late = chunk["broker_time"].to_numpy() >= self._since
        self._skipped["dead_letters"] += int((is_late & ~is_event).sum())
        late = is_late[is_event]
        self._skipped["duplicates"] += int((late & ~first).sum())
        self._skipped["deleted_users"] += int((late & erased & first).sum())
        accepted = late & first & ~erased
        rows = valid.select(COLUMNS)
        return (rows if accepted.all() else rows.filter(pa.array(accepted))).cast(SCHEMA)


def _chunks(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least `rows` rows, save the last one."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        if sum(waiting.num_rows for waiting in pending) >= rows:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)


def _made_ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, each made by a thread while the one before it is used.

    Reading and encoding do not hold Python's lock.
    """
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, tables, None)
        while (table := following.result()) is not None:
            following = pool.submit(next, tables, None)
            yield table


def from_file(source: Source) -> tuple[pa.Table, Skipped]:
    """Read the events in a file, a folder or at s3://bucket/key, as `streams import` reads them.

    It has the columns user_id, item_id, event_type and optionally timestamp (seconds since 1970 or
    ISO 8601), value and use_case, or it follows a public layout; further columns are ignored. Rows
    are put in time order, rows without a time first, ties in the order of the file. Rows that
    ingest would refuse are skipped and counted by reason.

    Raises DatasetError, which names the file and what is wrong with it.
    """
    skipped: Counter[str] = Counter()
    rows = pa.concat_tables([FILE_SCHEMA.empty_table(), *file_tables(source, skipped)])
    table = pa.table(
        [
            column.dictionary_encode() if field.type == _ID else column
            for field, column in zip(SCHEMA, rows.columns, strict=True)
        ],
        schema=SCHEMA,
    )
    order = pc.sort_indices(pc.fill_null(table["timestamp"], -np.inf))
    return table.take(order), dict(skipped)


def file_tables(source: Source, skipped: Counter[str]) -> Iterator[pa.Table]:
    """The accepted events in a file, batch by batch in its order, by FILE_SCHEMA.

    `skipped`: to count the others in, by reason. Raises DatasetError.
    """
    for batch in table_files.valid_rows(source, "interactions", skipped):
        columns = [
            pa.nulls(len(batch.numbers), field.type)
            if (values := batch.fields.get(field.name)) is None
            else pa.array(values, field.type)
            for field in FILE_SCHEMA
        ]
        yield pa.table(columns, FILE_SCHEMA)


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
