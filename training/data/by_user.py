"""Puts events in the order of their users, in memory that does not grow with their number.

1. `Spool` takes the events up as they are read, with numbers for their ids (`Names`). More than
   BUCKET_EVENTS lie in a temporary file.
2. Once all ids are known, so is their order, and how many events each user has. Users that follow
   each other and have about BUCKET_EVENTS events are a bucket; the events go to its file.
3. Bucket by bucket, the events are sorted in memory and appended to the arrays of the dataset.

Up to BUCKET_EVENTS events are one bucket, and there is no file. Every sort keeps the order of a
user's events. In memory are the ids, the events of one bucket, and those of the user with the most.
The temporary files (TMPDIR) have 28 bytes an event, twice while the buckets are filled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from training.data.columns import PIECE, Array, ColumnWriter

BUCKET_EVENTS = 4_000_000
"""Events that are sorted at once: 112 MB, three times during the sort."""

RECORD = np.dtype(
    [
        ("user_id", np.int32),
        ("item_id", np.int32),
        ("event_type", np.int16),
        ("use_case", np.int16),
        ("value", np.float64),
        ("timestamp", np.float64),
    ]
)
"""One event: numbers of its texts, -1 for none; NaN for no value and no time."""
TEXTS = ("user_id", "item_id", "event_type", "use_case")
NUMBERS = ("value", "timestamp")

Places = Mapping[str, npt.NDArray[np.int32]]
"""Column -> the place of each number in the sorted names; the last one is -1, for none."""


class Names:
    """Numbers the distinct texts of a column in the order in which they first come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def encode(self, column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
        """(n,) int32: the number of each text of a dictionary column, -1 for null."""
        array = column.unify_dictionaries().combine_chunks()
        codes = pc.fill_null(array.indices, -1).to_numpy()
        used = np.flatnonzero(np.bincount(codes + 1, minlength=len(array.dictionary) + 1)[1:])
        names, numbers = array.dictionary.take(pa.array(used)).to_pylist(), self._numbers
        places = np.full(len(array.dictionary) + 1, -1, np.int32)  # index -1 reads the last place
        places[used] = [numbers.setdefault(name, len(numbers)) for name in names]
        encoded: npt.NDArray[np.int32] = places[codes]
        return encoded

    def sorted(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        """The texts in order, and the place of each number in it; the last place is -1."""
        names = pa.array(self._numbers, pa.large_string())
        order = pc.sort_indices(names)
        places = np.full(len(names) + 1, -1, np.int32)
        places[order.to_numpy()] = np.arange(len(names), dtype=np.int32)
        return names.take(order).to_pylist(), places


class Spool:
    """Events in the order in which they are added. Methods raise OSError."""

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._file: IO[bytes] | None = None
        self._pending = 0
        self.events = 0

    def add(self, columns: Mapping[str, Array]) -> None:
        """Add events, which have the columns of RECORD."""
        part = np.empty(len(columns["user_id"]), RECORD)
        for name, values in columns.items():
            part[name] = values
        self._parts.append(part)
        self.events += len(part)
        self._pending += len(part)
        if self._pending > BUCKET_EVENTS:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - until `close`
            for pending in self._parts:
                pending.tofile(self._file)
            self._parts, self._pending = [], 0

    def parts(self) -> Iterator[Array]:
        """All events, in parts."""
        if self._file is not None:
            self._file.seek(0)
            while len(part := np.fromfile(self._file, RECORD, PIECE)):
                yield part
        yield from self._parts

    def close(self) -> None:
        """Forget all events."""
        self._parts = []
        if self._file is not None:
            self._file.close()


class ByUser(NamedTuple):
    """Events of user u are the rows indptr[u] to indptr[u+1] of the columns, in their order."""

    indptr: npt.NDArray[np.int64]
    columns: dict[str, Array]


def sort(
    spool: Spool, places: Places, derive: Callable[[Mapping[str, Array]], Mapping[str, Array]]
) -> ByUser:
    """Steps 2 and 3; closes `spool`. Raises OSError.

    `derive`: from the columns of some events (TEXTS as places, and NUMBERS) those to return.
    """
    user = places["user_id"]
    counts = np.zeros(len(user) - 1, np.int64)
    for part in spool.parts():
        counts += np.bincount(user[part["user_id"]], minlength=len(counts))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    bucket_of = (indptr[:-1] // BUCKET_EVENTS).astype(np.uint16)[user]
    writers: dict[str, ColumnWriter] = {}
    is_small = spool.events <= BUCKET_EVENTS
    for bucket in [_whole(spool)] if is_small else _buckets(spool, bucket_of):
        order = np.argsort(user[bucket["user_id"]], kind="stable")
        ordered: dict[str, Array] = {name: bucket[name][order] for name in NUMBERS}
        for name in TEXTS:
            ordered[name] = places[name][bucket[name][order]]
        for name, values in derive(ordered).items():
            if name not in writers:
                writers[name] = ColumnWriter(in_file=not is_small)
            writers[name].append(values)
    return ByUser(indptr, {name: writer.array() for name, writer in writers.items()})


def _whole(spool: Spool) -> Array:
    whole = np.concatenate(list(spool.parts()))
    spool.close()
    return whole


def _buckets(spool: Spool, bucket_of: npt.NDArray[np.uint16]) -> Iterator[Array]:
    """The events of each bucket; `bucket_of`: user number -> bucket."""
    files: list[IO[Any]] = [
        tempfile.TemporaryFile()  # noqa: SIM115 - closed once read
        for _ in range(int(bucket_of.max()) + 1)
    ]
    for part in spool.parts():
        bucket = bucket_of[part["user_id"]]
        ends = np.cumsum(np.bincount(bucket, minlength=len(files)))
        in_order = part[np.argsort(bucket, kind="stable")]
        for file, events in zip(files, np.split(in_order, ends[:-1]), strict=True):
            events.tofile(file)
    spool.close()
    for file in files:
        with file:
            file.seek(0)
            yield np.fromfile(file, RECORD)
