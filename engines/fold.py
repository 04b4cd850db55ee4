"""From a history to what a fold-in takes: the one place that the reader, the live worker and the evaluation share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np
import scipy.sparse as sp

from core.types import HistoryEvent
from core.use_cases import UseCases
from engines.base import item_weights
from models.als import ALSModel, Floats

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


class Lines:
    """The same as `matrix`, straight from the lines that a history holds, for whoever folds in thousands of users a second.

    A line without its time says which weight goes to which item, and repeats; so each is parsed once and looked up from then on, at a
    tenth of the cost.
    """

    def __init__(self, model: ALSModel, use_cases: UseCases, parse: Callable[[bytes], HistoryEvent]) -> None:
        """`parse`: the event of a line, which begins with its time and a space."""
        self.model = model
        self._weigher, self._parse = use_cases, parse
        self._places = _Places(self._place)
        self._rows, self._weights = [0], [0.0]  # place 0: counts nothing

    def matrix(self, histories: Sequence[Sequence[bytes]]) -> sp.csr_matrix:
        """Weights (n_users, n_items) f32 CSR, entries above 0 only, without duplicates."""
        if len(self._places) > _REMEMBERED:
            self._places.clear()
            del self._rows[1:], self._weights[1:]
        places = self._look_up(chain.from_iterable(histories))
        lengths = np.fromiter(map(len, histories), dtype=np.int32, count=len(histories))
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        # Summed in float64, as `item_weights` does: sums of weights are exact there.
        weights = np.array(self._weights)[places]
        rows = np.array(self._rows, dtype=np.int32)[places]
        counted = sp.csr_matrix((weights, rows, indptr), shape=(len(histories), len(self.model.item_ids)))
        counted.sum_duplicates()
        counted.eliminate_zeros()
        return counted.astype(np.float32)

    def _look_up(self, lines: Iterable[bytes]) -> list[int]:
        places = self._places
        return [places[line.split(b" ", 1)[1]] for line in lines]

    def _place(self, event: bytes) -> int:
        """The place of a line without its time in `_rows` and `_weights`."""
        weights = item_weights([self._parse(b"0 " + event)], self._weigher)
        for item_id, weight in weights.items():
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
