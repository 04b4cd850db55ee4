"""From a history to what a fold-in takes: the one place that the reader, the live worker and the evaluation share."""

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

Known = NDArray[np.bool_]
Places = NDArray[np.intp]
_AFTER_TIME = itemgetter(slice(10, None))
_ONE_BY_ONE = 4500
"""Items times factors from which one LAPACK solution a user is faster than the compiled solver's loops: 70 items at 64 factors, where it
saves a tenth, and six tenths at 500. Measured at 16 to 256 factors; python -m benchmarks.fold_in tells the sum of both."""
_REMEMBERED = 500_000
"""Different lines without their time (event type, value, item) that `Lines` remembers: some 100 MB at most."""


def made_with(model: ALSModel, use_cases: UseCases, history_cap: int) -> str:
    """Sixteen hex digits that change with anything a user's vector depends on beside the events: factors, event weights, history cap."""
    facts = json.dumps([model.digest, sorted(use_cases.event_types.items()), history_cap])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def matrix(model: ALSModel, use_cases: UseCases, histories: Sequence[Sequence[HistoryEvent]]) -> sp.csr_matrix:
    """Weights (n_users, n_items) f32 CSR of the items that the model knows; a user who touched none has an empty row."""
    indptr, columns, weights = [0], [], []
    for history in histories:
        mine = item_weights(history, use_cases)
        rows = model.item_ids.rows(mine)
        known = rows >= 0
        columns.append(rows[known])
        weights.append(np.fromiter(mine.values(), dtype=np.float32, count=len(mine))[known])
        indptr.append(indptr[-1] + len(columns[-1]))
    shape = (len(histories), len(model.item_ids))
    if not columns:
        return sp.csr_matrix(shape, dtype=np.float32)
    return sp.csr_matrix((np.concatenate(weights), np.concatenate(columns), np.array(indptr)), shape=shape)


def vectors(model: ALSModel, use_cases: UseCases, histories: Sequence[Sequence[HistoryEvent]]) -> Floats:
    """Vectors (n_users, f) f32 of many users by the compiled solver; zeros for a user without an item that the model knows."""
    return model.fold_in_many(matrix(model, use_cases, histories))


def solved(model: ALSModel, weights: sp.csr_matrix) -> Floats:
    """Vectors (n_users, f) f32 of `weights` (n_users, n_items) f32 CSR, each user by the solver that is faster for so many items."""
    one_by_one = np.diff(weights.indptr) * model.factors >= _ONE_BY_ONE
    vectors = np.zeros((weights.shape[0], model.factors), dtype=np.float32)
    vectors[~one_by_one] = model.fold_in_many(weights[~one_by_one])
    for row in np.flatnonzero(one_by_one).tolist():
        mine = slice(weights.indptr[row], weights.indptr[row + 1])
        vectors[row] = model.fold_in(weights.indices[mine], weights.data[mine])
    return vectors


class Lines:
    """The same as `matrix`, straight from the lines that a history holds, for whoever folds in thousands of users a second.

    A line `1732340000 view startup-9` without its time says which weight goes to which item, and repeats; so it is parsed once and looked
    up from then on, at a fifth of the cost. Not thread-safe.
    """

    def __init__(self, model: ALSModel, use_cases: UseCases, parse: Callable[[bytes], HistoryEvent]) -> None:
        """`parse`: the event of a line, which is its time, a space, its type, a space and its item. Raises ValueError."""
        self.model = model
        self._weigher, self._parse = use_cases, parse
        self._places = _Places(self._place)
        self._rows, self._weights = array("i", [0]), array("d", [0.0])  # place 0: counts nothing

    def vectors(self, histories: Sequence[Sequence[bytes]]) -> tuple[Floats, Known]:
        """Vectors (n_users, f) f32 as `vectors` makes them, and (n_users,) bool: who touched an item that the model knows."""
        weights = self.matrix(histories)
        return solved(self.model, weights), np.diff(weights.indptr) > 0

    def matrix(self, histories: Sequence[Sequence[bytes]]) -> sp.csr_matrix:
        """Weights (n_users, n_items) f32 CSR, above 0, each item of a user once. Raises ValueError."""
        if len(self._places) > _REMEMBERED:
            self._places.clear()
            del self._rows[1:], self._weights[1:]
        places = self._look_up(list(chain.from_iterable(histories)))
        indptr = np.zeros(len(histories) + 1, dtype=np.int32)
        np.cumsum(np.fromiter(map(len, histories), dtype=np.int32, count=len(histories)), out=indptr[1:])
        # Summed in float64, as `item_weights` does: sums of weights are exact there.
        weights, rows = np.frombuffer(self._weights)[places], np.frombuffer(self._rows, dtype=np.int32)[places]
        counted = sp.csr_matrix((weights, rows, indptr), shape=(len(histories), len(self.model.item_ids)))
        counted.sum_duplicates()
        counted.eliminate_zeros()
        return counted.astype(np.float32)

    def _look_up(self, lines: list[bytes]) -> Places:
        # A time of today has ten digits. When no id holds a space, a line has two of them, and what is left of it after a cut at ten has
        # two only if that was the right place: so a line with another time is never taken for a whole one.
        if b"".join(lines).count(b" ") == 2 * len(lines):
            try:
                return np.fromiter(map(self._places.__getitem__, map(_AFTER_TIME, lines)), dtype=np.intp, count=len(lines))
            except ValueError:
                pass  # another time, or no event at all: the long way tells
        return np.fromiter((self._places[line[line.index(b" ") :]] for line in lines), dtype=np.intp, count=len(lines))

    def _place(self, event: bytes) -> int:
        """The place of ` view startup-9` in `_rows` and `_weights`. Raises ValueError when it is not of that form."""
        if not event.startswith(b" ") or event.count(b" ") < 2:
            raise ValueError(f"{event!r} is no event of a history")
        for item_id, weight in item_weights([self._parse(b"0" + event)], self._weigher).items():
            row = self.model.item_ids.row(item_id)
            if row >= 0:
                self._rows.append(row)
                self._weights.append(weight)
                return len(self._rows) - 1
        return 0


class _Places(dict[bytes, int]):
    """Asks `place` for what it does not hold yet, and remembers the answer."""

    def __init__(self, place: Callable[[bytes], int]) -> None:
        super().__init__()
        self._place = place

    def __missing__(self, event: bytes) -> int:
        place = self[event] = self._place(event)
        return place
