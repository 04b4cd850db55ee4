"""Turns histories into the input of a fold-in, for readers, live workers and the evaluation."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from core.types import HistoryEvent
from core.use_cases import UseCases
from engines.base import item_weights
from models.als import ALSModel, Floats

Bools = NDArray[np.bool_]
Slots = NDArray[np.intp]
_AFTER_TIME = itemgetter(slice(10, None))
ONE_BY_ONE = 4500
"""Items x factors from which one LAPACK solution for each user is faster than the compiled solver:
70 items at 64 factors, where it saves a tenth; at 500 items it saves six tenths. Measured at 16 to
256 factors (`python -m benchmarks.fold_in`).
"""
_CACHED_LINES = 500_000
"""Distinct lines without their time (event type, value, item) that `Lines` caches: about 100 MB at
most.
"""


def made_with(model: ALSModel, use_cases: UseCases, history_cap: int) -> str:
    """Sixteen hex digits that identify what a user's vector depends on beside the events.

    That is: factors, event weights and history cap.
    """
    facts = json.dumps([model.digest, sorted(use_cases.event_types.items()), history_cap])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def matrix(
    model: ALSModel, use_cases: UseCases, histories: Sequence[Sequence[HistoryEvent]]
) -> sp.csr_matrix:
    """Weights (n_users, n_items) f32 CSR of the items in the model.

    A user without such an item has an empty row.
    """
    indptr, columns, weights = [0], [], []
    for history in histories:
        by_item = item_weights(history, use_cases)
        rows = model.item_ids.rows(by_item)
        in_model = rows >= 0
        columns.append(rows[in_model])
        weights.append(
            np.fromiter(by_item.values(), dtype=np.float32, count=len(by_item))[in_model]
        )
        indptr.append(indptr[-1] + len(columns[-1]))
    shape = (len(histories), len(model.item_ids))
    if not columns:
        return sp.csr_matrix(shape, dtype=np.float32)
    return sp.csr_matrix(
        (np.concatenate(weights), np.concatenate(columns), np.array(indptr)), shape=shape
    )


def vectors(
    model: ALSModel, use_cases: UseCases, histories: Sequence[Sequence[HistoryEvent]]
) -> Floats:
    """Vectors (n_users, f) f32 of many users by the compiled solver.

    Zeros for a user without an item of the model.
    """
    return model.fold_in_many(matrix(model, use_cases, histories))


def solve(model: ALSModel, weights: sp.csr_matrix) -> Floats:
    """Vectors (n_users, f) f32 of `weights` (n_users, n_items) f32 CSR.

    Each is solved by the solver that is faster for its number of items.
    """
    one_by_one = np.diff(weights.indptr) * model.factors >= ONE_BY_ONE
    vectors = np.zeros((weights.shape[0], model.factors), dtype=np.float32)
    vectors[~one_by_one] = model.fold_in_many(weights[~one_by_one])
    for row in np.flatnonzero(one_by_one).tolist():
        entries = slice(weights.indptr[row], weights.indptr[row + 1])
        vectors[row] = model.fold_in(weights.indices[entries], weights.data[entries])
    return vectors


class Lines:
    """Makes the same matrix as `matrix` from the lines of a history.

    It serves callers that fold in thousands of users a second.

    The rest of a line after its time (`view startup-9`) decides the item and the weight, and
    repeats. It is parsed once and cached, which costs a fifth. Not thread-safe.
    """

    def __init__(
        self, model: ALSModel, use_cases: UseCases, parse: Callable[[bytes], HistoryEvent]
    ) -> None:
        """`parse` decodes one line (time, event type, item, separated by spaces) and raises
        ValueError.
        """
        self.model = model
        self._weigher, self._parse = use_cases, parse
        self._slots = _SlotCache(self._add_slot)
        self._rows, self._weights = array("i", [0]), array("d", [0.0])  # slot 0 has no weight

    def vectors(self, histories: Sequence[Sequence[bytes]]) -> tuple[Floats, Bools]:
        """Vectors (n_users, f) f32 as `vectors` makes them, and who has an item of the model.

        The second is (n_users,) bool.
        """
        weights = self.matrix(histories)
        return solve(self.model, weights), np.diff(weights.indptr) > 0

    def matrix(self, histories: Sequence[Sequence[bytes]]) -> sp.csr_matrix:
        """Weights (n_users, n_items) f32 CSR, above 0, each item of a user once.

        Raises ValueError.
        """
        if len(self._slots) > _CACHED_LINES:
            self._slots.clear()
            del self._rows[1:], self._weights[1:]
        slots = self._look_up(list(chain.from_iterable(histories)))
        indptr = np.zeros(len(histories) + 1, dtype=np.int32)
        np.cumsum(
            np.fromiter(map(len, histories), dtype=np.int32, count=len(histories)), out=indptr[1:]
        )
        # Summed in float64, as `item_weights` does: sums of weights are exact there.
        weights, rows = (
            np.frombuffer(self._weights)[slots],
            np.frombuffer(self._rows, dtype=np.int32)[slots],
        )
        matrix = sp.csr_matrix(
            (weights, rows, indptr), shape=(len(histories), len(self.model.item_ids))
        )
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix.astype(np.float32)

    def _look_up(self, lines: list[bytes]) -> Slots:
        # Fast path: a current time has ten digits, and a line has two spaces when no id holds one.
        # After a cut at ten characters a line still has two spaces only if its time has ten digits,
        # so a line with another time is never mistaken.
        if b"".join(lines).count(b" ") == 2 * len(lines):
            try:
                return np.fromiter(
                    map(self._slots.__getitem__, map(_AFTER_TIME, lines)),
                    dtype=np.intp,
                    count=len(lines),
                )
            except ValueError:
                pass  # a time of another length, or no event at all: the slow path finds out
        return np.fromiter(
            (self._slots[line[line.index(b" ") :]] for line in lines),
            dtype=np.intp,
            count=len(lines),
        )

    def _add_slot(self, event: bytes) -> int:
        """The slot of ` view startup-9` in `_rows` and `_weights`.

        Raises ValueError when `event` is not of that form.
        """
        if not event.startswith(b" ") or event.count(b" ") < 2:
            raise ValueError(f"{event!r} is no event of a history")
        for item_id, weight in item_weights([self._parse(b"0" + event)], self._weigher).items():
            row = self.model.item_ids.row(item_id)
            if row >= 0:
                self._rows.append(row)
                self._weights.append(weight)
                return len(self._rows) - 1
        return 0


class _SlotCache(dict[bytes, int]):
    """Calls `add` on a miss and caches the result."""

    def __init__(self, add: Callable[[bytes], int]) -> None:
        super().__init__()
        self._add = add

    def __missing__(self, event: bytes) -> int:
        slot = self[event] = self._add(event)
        return slot
