"""Builds the dataset of a training run from a table of events.

A dataset has id maps, every user's events in order, a weighted user-item matrix, and a split by
time.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from core.errors import DatasetError
from core.types import HistoryEvent, UserState
from core.use_cases import MAX_WEIGHT, WEIGHT_STEP, UseCases
from models.id_map import IdMap
from training.data import by_user, columns, sums
from training.data.by_user import NUMBERS, RECORD, TEXTS, Names, Spool
from training.data.events import Skipped

Bools = npt.NDArray[np.bool_]
COLUMNS = ("item", "event_type", "use_case", "value", "weight", "timestamp")


class Interactions(NamedTuple):
    """The summed weights of users' events with items.

    `weights` (n_users, n_items) f32 CSR; its rows are `users`, its columns `items`.
    """

    weights: sp.csr_matrix
    users: IdMap
    items: IdMap


@dataclass(frozen=True)
class Dataset:
    """Events of user u are the rows indptr[u] to indptr[u+1], in log order.

    `item (n,) int32` rows of `items`; `event_type (n,) int16` places in `event_types`; `use_case
    (n,) int16` places in `use_cases`, -1 for none; `value (n,) float64`, NaN where the event has
    none; `weight (n,) float32` by the default weights of core.use_cases from type and value, as in
    a fold-in; `timestamp (n,) float64` seconds since 1970, NaN if unknown. `positions`: partition
    -> W, the first offset that is not included; empty when the events came from a file.

    The arrays of many events lie in temporary files that are mapped (training/data/by_user.py);
    `matrix`, `touched`, `split`, `sha256` and `summary` read them in pieces.
    """

    users: IdMap
    items: IdMap
    event_types: list[str]
    use_cases: list[str]
    indptr: npt.NDArray[np.int64]
    item: npt.NDArray[np.int32]
    event_type: npt.NDArray[np.int16]
    use_case: npt.NDArray[np.int16]
    value: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float32]
    timestamp: npt.NDArray[np.float64]
    positions: dict[int, int] = field(default_factory=dict)
    source: str = ""
    skipped: Skipped = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.item)
        if (
            len(self.indptr) != len(self.users) + 1
            or self.indptr[-1] != n
            or any(len(getattr(self, name)) != n for name in COLUMNS)
        ):
            raise ValueError("the arrays of a dataset have different lengths")

    @property
    def events(self) -> int:
        """The number of events."""
        return len(self.item)

    @cached_property
    def user(self) -> npt.NDArray[np.int32]:
        """(n,) int32: the user row of each event."""
        return np.repeat(np.arange(len(self.users), dtype=np.int32), np.diff(self.indptr))

    def matrix(self, where: Bools | None = None) -> sp.csr_matrix:
        """(n_users, n_items) float32 CSR: summed weight of the events in `where` (all).

        An event of weight 0 is no entry.
        """
        return sums.by_pair(self.indptr, self.item, len(self.items), self.weight, where)

    def interactions(self, where: Bools | None = None) -> Interactions:
        """`matrix(where)`, with the ids of its rows and columns."""
        return Interactions(self.matrix(where), self.users, self.items)

    def touched(self, where: Bools) -> sp.csr_matrix:
        """(n_users, n_items) float32 CSR: 1 for each pair with an event in `where`."""
        pairs = sums.by_pair(self.indptr, self.item, len(self.items), None, where)
        pairs.data[:] = 1.0
        return pairs

    @cached_property
    def _times(self) -> columns.Times:
        return columns.times(self.timestamp)

    def split(self, fraction: float) -> Split:
        """Cut at the time after which the last `fraction` of the timed events lie.

        Events without a time stay in training.

        Raises DatasetError when one side would be empty.
        """
        timed, first, last = self._times
        if not timed:
            raise DatasetError(
                "no event has a time, so there is nothing to split by; give events a "
                "timestamp to evaluate"
            )
        place = min(int(timed * (1.0 - fraction)), timed - 1)
        cut = columns.nth_smallest(self.timestamp, place)
        train = np.concatenate([~(piece >= cut) for piece in columns.pieces(self.timestamp)])
        if not train.any() or train.all():
            raise DatasetError(
                f"a split by time at {cut:.0f} leaves one side empty: the {self.events} events lie "
                f"between {first:.0f} and {last:.0f}; collect more"
            )
        return Split(cut, train)

    def of_user(self, user: int, where: Bools) -> npt.NDArray[np.int64]:
        """Events (n,) of the user in this row that are in `where`, in log order."""
        start, end = self.indptr[user], self.indptr[user + 1]
        events: npt.NDArray[np.int64] = np.flatnonzero(where[start:end]) + start
        return events

    def state(self, user: int, where: Bools, cap: int) -> UserState:
        """The state of the user in this row after the events in `where` alone, as Redis holds it.

        The history has at most `cap` events.
        """
        rows = self.of_user(user, where)
        types, counts = np.unique(self.event_type[rows], return_counts=True)
        latest = rows[-cap:]
        values = self.value[latest].astype(object)
        values[np.isnan(self.value[latest])] = None
        times, ids = np.nan_to_num(self.timestamp[latest]).astype(np.int64), self.items.ids
        type_codes, item_rows = self.event_type[latest].tolist(), self.item[latest].tolist()
        history = list(
            map(
                HistoryEvent,
                times.tolist(),
                map(self.event_types.__getitem__, type_codes),
                map(ids.__getitem__, item_rows),
                values.tolist(),
            )
        )
        return UserState(
            user_id=self.users.ids[user],
            events=len(rows),
            history=history,
            counts={
                self.event_types[kind]: count
                for kind, count in zip(types.tolist(), counts.tolist(), strict=True)
            },
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of the ids and the arrays: equal for equal events, whatever files they came from."""
        digest = hashlib.sha256(
            "\n".join(
                [*self.event_types, "", *self.use_cases, "", *self.users.ids, "", *self.items.ids]
            ).encode()
        )
        for array in (self.indptr, *(getattr(self, name) for name in COLUMNS)):
            for piece in columns.pieces(array):
                digest.update(np.ascontiguousarray(piece).data)
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        """The fields of dataset.json, which the manifest of a bundle repeats."""
        times = self._times
        return {
            "source": self.source,
            "positions": {str(partition): offset for partition, offset in self.positions.items()},
            "events": self.events,
            "users": len(self.users),
            "items": len(self.items),
            "skipped": self.skipped,
            "first_event": times.first if times.timed else None,
            "last_event": times.last if times.timed else None,
            "event_types": self.event_types,
            "use_cases": self.use_cases,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class Split:
    """Events before `cut` (seconds since 1970) are `train (n,) bool`; the rest are held out."""

    cut: float
    train: Bools


def build(
    tables: Iterable[pa.Table],
    use_cases: UseCases,
    positions: dict[int, int] | None = None,
    source: str = "",
    skipped: Skipped | None = None,
) -> Dataset:
    """Build a dataset from tables of training.data.events, which are read once.

    Ids are sorted, so that equal events make equal datasets. The memory grows with the ids, not
    with the events (training/data/by_user.py).

    Events of a type that is no longer configured are skipped and counted. `skipped` is read after
    the tables. Raises DatasetError when no event remains, or the temporary files do not fit.
    """
    names, spool, unknown = {name: Names() for name in TEXTS}, Spool(), 0
    types = pa.array(list(use_cases.event_types), pa.string())
    try:
        for table in tables:
            configured = pc.is_in(table["event_type"].cast(pa.string()), types)
            rows = table.filter(configured)
            unknown += table.num_rows - rows.num_rows
            texts = {name: names[name].encode(rows[name]) for name in TEXTS}
            numbers = {name: pc.fill_null(rows[name], np.nan).to_numpy() for name in NUMBERS}
            spool.add(texts | numbers)
        all_skipped = {**(skipped or {}), "unknown_event_types": unknown}
        if not spool.events:
            raise DatasetError(
                f"{source or 'the source'} holds no events to train on (skipped: "
                f"{all_skipped}); ingest and archive some first"
            )
        ordered = {name: names[name].sorted() for name in TEXTS}
        event_types = ordered["event_type"][0]

        def derive(rows: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
            by_type, kinds, value = use_cases.event_types, rows["event_type"], rows["value"]
            return {
                "item": rows["item_id"],
                "event_type": kinds.astype(np.int16),
                "use_case": rows["use_case"].astype(np.int16),
                "value": value,
                "weight": weights(by_type, event_types, kinds, value).astype(np.float32),
                "timestamp": rows["timestamp"],
            }

        places = {name: place for name, (_, place) in ordered.items()}
        indptr, arrays = by_user.sort(spool, places, derive)
    except OSError as error:
        raise DatasetError(
            f"{spool.events} events cannot be sorted in {tempfile.gettempdir()}: {error}; they "
            f"need {2 * RECORD.itemsize} bytes an event there. Set TMPDIR to a folder with space"
        ) from None
    finally:
        spool.close()
    return Dataset(
        users=IdMap(ordered["user_id"][0]),
        items=IdMap(ordered["item_id"][0]),
        event_types=event_types,
        use_cases=ordered["use_case"][0],
        indptr=indptr,
        positions=positions or {},
        source=source,
        skipped=all_skipped,
        **arrays,
    )


def weights(
    by_type: Mapping[str, float],
    event_types: list[str],
    event_type: npt.NDArray[Any],
    value: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(n,) float64: core.use_cases.UseCases.weight for many events at once.

    `event_type (n,)`: places in `event_types`.
    """
    weight = np.minimum(
        np.array([by_type[name] for name in event_types])[event_type]
        * np.where(np.isnan(value), 1.0, value),
        MAX_WEIGHT,
    )
    rounded: npt.NDArray[np.float64] = np.rint(weight / WEIGHT_STEP) * WEIGHT_STEP
    return rounded
