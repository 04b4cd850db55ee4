"""Indexes the catalogue by one field, so that a filter on it becomes a mask over all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.process.background import with_pauses
from core.types import Item, Value
from engines.selection.filters import number, texts

Rows = NDArray[np.int32]

_EMPTY: Rows = np.zeros(0, dtype=np.int32)


class Column:
    """Index of one field: `rows_of` by text, and `numbers` (n_rows,) f64, NaN without a number."""

    __slots__ = ("_rows", "numbers", "read")

    def __init__(
        self, read: Callable[[Item], Value], rows: dict[str, Rows], numbers: NDArray[np.float64]
    ) -> None:
        self.read, self._rows, self.numbers = read, rows, numbers

    @classmethod
    def of(cls, read: Callable[[Item], Value], items: Sequence[Item | None]) -> Column:
        """The column of `items` as rows 0, 1, ..."""
        return cls(read, {}, np.zeros(0)).extended(0, items)

    def extended(self, start: int, items: Sequence[Item | None]) -> Column:
        """The column with `items` appended as rows `start`, `start` + 1, ..."""
        rows_by_text: dict[str, list[int]] = {}
        values = [None if item is None else self.read(item) for item in with_pauses(items)]
        for row, value in enumerate(with_pauses(values), start):
            for text in texts(value):
                rows_by_text.setdefault(text, []).append(row)
        rows = dict(self._rows)
        for text, new_rows in rows_by_text.items():
            rows[text] = np.concatenate(
                [rows.get(text, _EMPTY), np.array(new_rows, dtype=np.int32)]
            )
        numbers = np.array([number(value) for value in with_pauses(values)], dtype=np.float64)
        return Column(self.read, rows, np.concatenate([self.numbers, numbers]))

    def rows_of(self, values: Sequence[str]) -> Rows:
        """Rows (n,) int32 that have at least one of `values`; a row can occur more than once."""
        rows = [self._rows[text] for text in values if text in self._rows]
        return np.concatenate(rows) if rows else _EMPTY
