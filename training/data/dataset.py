"""Builds the dataset of a training run from a table of events.

A dataset has id maps, every user's events in order, a weighted user-item matrix, and a split by
time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
        return self._summed(
            self.weight, self.weight > 0 if where is None else where & (self.weight > 0)
        )

    def interactions(self, where: Bools | None = None) -> Interactions:
        """`matrix(where)`, with the ids of its rows and columns."""
        return Interactions(self.matrix(where), self.users, self.items)

    def touched(self, where: Bools) -> sp.csr_matrix:
        """(n_users, n_items) float32 CSR: 1 for each pair with an event in `where`."""
        pairs = self._summed(np.ones(self.events, np.float32), where)
        pairs.data[:] = 1.0
        return pairs

    def _summed(self, values: npt.NDArray[np.float32], where: Bools) -> sp.csr_matrix:
        """(n_users, n_items) CSR: summed `values (n,)` of the events in `where`, items in order."""
        indptr = np.concatenate([[0], np.cumsum(where)])[self.indptr]
        matrix = sp.csr_matrix(
            (values[where], self.item[where], indptr), shape=(len(self.users), len(self.items))
        )
        summed = matrix.tocsc().tocsr()  # converting twice orders the items without a sort
        summed.sum_duplicates()
        return summed

    def split(self, fraction: float) -> Split:
        """Cut at the time after which the last `fraction` of the timed events lie.

        Events without a time stay in training.

        Raises DatasetError when one side would be empty.
        """
        timed = np.sort(self.timestamp[~np.isnan(self.timestamp)])
        if not len(timed):
            raise DatasetError(
                "no event has a time, so there is nothing to split by; give events a "
                "timestamp to evaluate"
            )
        cut = float(timed[min(int(len(timed) * (1.0 - fraction)), len(timed) - 1)])
        train = ~(self.timestamp >= cut)
        if not train.any() or train.all():
            raise DatasetError(
                f"a split by time at {cut:.0f} leaves one side empty: the {self.events} events lie "
                f"between {timed[0]:.0f} and {timed[-1]:.0f}; collect more"
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
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        """The fields of dataset.json, which the manifest of a bundle repeats."""
        timed = self.timestamp[~np.isnan(self.timestamp)]
        return {
            "source": self.source,
            "positions": {str(partition): offset for partition, offset in self.positions.items()},
            "events": self.events,
            "users": len(self.users),
            "items": len(self.items),
            "skipped": self.skipped,
            "first_event": float(timed.min()) if len(timed) else None,
            "last_event": float(timed.max()) if len(timed) else None,
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
    table: pa.Table,
    use_cases: UseCases,
    positions: dict[int, int] | None = None,
    source: str = "",
    skipped: Skipped | None = None,
) -> Dataset:
    """Build a dataset from a table of training.data.events.

    Ids are sorted, so that equal events make equal datasets.

    Events of a type that is no longer configured are skipped and counted. Raises DatasetError when
    no event remains.
    """
    configured = pc.is_in(
        table["event_type"].cast(pa.string()), pa.array(list(use_cases.event_types), pa.string())
    )
    all_skipped = {
        **(skipped or {}),
        "unknown_event_types": table.num_rows - (pc.sum(configured).as_py() or 0),
    }
    if all_skipped["unknown_event_types"]:
        table = table.filter(configured)
    if not table.num_rows:
        raise DatasetError(
            f"{source or 'the source'} holds no events to train on (skipped: "
            f"{all_skipped}); ingest and archive some first"
        )
    users, user = _encode(table["user_id"])
    items, item = _encode(table["item_id"])
    event_types, event_type = _encode(table["event_type"])
    names, use_case = _encode(table["use_case"])
    value = pc.fill_null(table["value"], np.nan).to_numpy()
    order = np.argsort(user, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(
        np.int64
    )
    return Dataset(
        users=IdMap(users),
        items=IdMap(items),
        event_types=event_types,
        use_cases=names,
        indptr=indptr,
        item=item[order],
        event_type=event_type[order].astype(np.int16),
        use_case=use_case[order].astype(np.int16),
        value=value[order],
        weight=weights(use_cases.event_types, event_types, event_type, value)[order].astype(
            np.float32
        ),
        timestamp=pc.fill_null(table["timestamp"], np.nan).to_numpy()[order],
        positions=positions or {},
        source=source,
        skipped=all_skipped,
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


def _encode(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The distinct names that occur, sorted, and (n,) int32 places among them, -1 for null."""
    array = column.unify_dictionaries().combine_chunks()
    codes = pc.fill_null(array.indices, -1).to_numpy()
    used = np.flatnonzero(np.bincount(codes + 1, minlength=len(array.dictionary) + 1)[1:])
    names = array.dictionary.take(pa.array(used))
    order = pc.sort_indices(names).to_numpy()
    place = np.full(len(array.dictionary) + 1, -1, np.int32)  # index -1 reads the last place
    place[used[order]] = np.arange(len(used), dtype=np.int32)
    return names.take(pa.array(order)).to_pylist(), place[codes]
