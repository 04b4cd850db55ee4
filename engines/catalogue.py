"""An immutable, growing table of items, with columns that turn filters into masks.

Rows are only ever appended: a changed item gets a new row and its old one dies, so what engines hold by row stays right
and an update costs as much as it changes. When a quarter of the rows is dead, the table is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.background import resting
from core.types import AttributeFilter, Item, Value
from engines.cache import Bounded
from engines.selection.filters import Conditions, attribute_passes, number, texts

Mask = NDArray[np.bool_]
Rows = NDArray[np.int32]

MASKS_KEPT = 64
"""Masks of different filters that are kept: 100 KB each at 100,000 items."""
COLUMNS_KEPT = 64
"""Attributes that are kept as columns; filters name them, and filters come from outside."""
COMPACT_FROM = 1000
"""Dead rows below which making the table anew is not worth it."""
ANCESTORS_KNOWN = 16
"""Snapshots back to which `extends` need not compare the rows."""

_EMPTY: Rows = np.zeros(0, dtype=np.int32)


class Catalogue:
    """Items by row. `ids`, `items`: by row, dead rows too; an item that is None is known only to a model.

    `rows`: id -> live row; `alive` (n_rows,) bool; `deleted`: ids that must not be shown though a model knows them.
    """

    def __init__(
        self,
        ids: list[str],
        items: list[Item | None],
        rows: dict[str, int],
        deleted: frozenset[str],
        columns: dict[str, _Column] | None = None,
        described: Mask | None = None,
        ancestors: tuple[object, ...] = (),
    ) -> None:
        self.ids, self.items, self.rows, self.deleted = ids, items, rows, deleted
        self._token, self._ancestors = object(), ancestors
        self.alive: Mask = np.zeros(len(ids), dtype=np.bool_)
        self.alive[np.fromiter(rows.values(), dtype=np.int64, count=len(rows))] = True
        self._described: Mask = np.array([item is not None for item in items], dtype=np.bool_) if described is None else described
        self._columns = columns or {}
        self._masks: Bounded[Mask] = Bounded(MASKS_KEPT)

    @classmethod
    def of(cls, items: Iterable[Item], bare_ids: Iterable[str] = (), deleted: Iterable[str] = ()) -> Catalogue:
        """A catalogue of `items` (of two with one id the later counts), and of ids that only models know."""
        by_id: dict[str, Item | None] = {item.item_id: item for item in items}
        gone = frozenset(deleted) - by_id.keys()
        for item_id in bare_ids:
            if item_id not in gone:
                by_id.setdefault(item_id, None)
        return cls(list(by_id), list(by_id.values()), {item_id: row for row, item_id in enumerate(by_id)}, gone)

    def __len__(self) -> int:
        """Items with an entry, whether or not available."""
        return int(np.count_nonzero(self.alive & self._described))

    @property
    def bare(self) -> int:
        """Items that only a model or popularity has seen."""
        return len(self.rows) - len(self)

    def updated(self, items: Iterable[Item], deleted: Iterable[str] = ()) -> Catalogue:
        """The catalogue after new or changed `items` and then the ids `deleted`. An item that did not change keeps its row."""
        changed = {item.item_id: item for item in items}
        gone = set(deleted)
        fresh = [item for item_id, item in changed.items() if item_id not in gone and self.get(item_id) != item]
        dropped = self.deleted.union(gone).difference(item_id for item_id in changed if item_id not in gone)
        if not fresh and dropped == self.deleted and not any(item_id in self.rows for item_id in gone):
            return self
        return self._appended([item.item_id for item in fresh], list(fresh), gone, dropped)

    def with_bare(self, ids: Iterable[str]) -> Catalogue:
        """The catalogue with a row for each of `ids` that it knows nothing of: items that only a model has seen. Deleted ones stay away."""
        new = list(dict.fromkeys(item_id for item_id in ids if item_id not in self.rows and item_id not in self.deleted))
        return self._appended(new, [None] * len(new), set(), self.deleted) if new else self

    def without_bare(self) -> Catalogue:
        """The catalogue without items that only a model has seen."""
        if not self.bare:
            return self
        return Catalogue.of(self.entries(), deleted=self.deleted)

    def entries(self) -> list[Item]:
        """Every item that has an entry."""
        return [item for row in self.rows.values() if (item := self.items[row]) is not None]

    def get(self, item_id: str) -> Item | None:
        """The item, or None."""
        row = self.rows.get(item_id)
        return None if row is None else self.items[row]

    def extends(self, other: Catalogue) -> bool:
        """Whether each row of `other` still holds the same here, so that what was computed by row stays right."""
        if other._token is self._token or other._token in self._ancestors:
            return True
        length = len(other.ids)
        return self.ids[:length] == other.ids and self.items[:length] == other.items

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """Rows of those of `ids` that are here."""
        return [row for row in map(self.rows.get, ids) if row is not None]

    def prepare(self, former: Catalogue) -> None:
        """Make now what readers made `former` make on first use: they would all wait for it, tens of milliseconds at 10,000 items."""
        for name, column in list(former._columns.items()):
            self._column(name, column.read)
        for name in ("newest", "created"):
            if name in former.__dict__:
                getattr(self, name)

    def mask(self, asked: Conditions) -> Mask:
        """(n_rows,) bool: the items that pass. Shared between callers: copy before you change it."""
        return self._masks.get(asked.key, lambda: self._mask(asked))

    @cached_property
    def created(self) -> NDArray[np.float64]:
        """(n_rows,) f64: when each row's item was created, in seconds since 1970; NaN where that is not known."""
        return np.array([np.nan if item is None or item.created_at is None else item.created_at for item in self.items], dtype=np.float64)

    @cached_property
    def newest(self) -> Rows:
        """Live rows int32, latest `created_at` first, then those without one; ties by id."""
        items = self.items

        def age(row: int) -> tuple[float, str]:
            item = items[row]
            return (np.inf if item is None or item.created_at is None else -item.created_at), self.ids[row]

        return np.array(sorted(self.rows.values(), key=age), dtype=np.int32)

    def _appended(self, ids: list[str], items: list[Item | None], gone: set[str], deleted: frozenset[str]) -> Catalogue:
        rows = dict(self.rows)
        rows.update(zip(ids, range(len(self.ids), len(self.ids) + len(ids)), strict=True))
        for item_id in gone:
            rows.pop(item_id, None)
        all_ids, all_items = self.ids + ids, self.items + items
        if len(all_ids) - len(rows) > max(COMPACT_FROM, len(all_ids) // 4):
            live = sorted(rows.values())
            kept = [all_ids[row] for row in live]
            return Catalogue(kept, [all_items[row] for row in live], {item_id: row for row, item_id in enumerate(kept)}, deleted)
        columns = {name: column.extended(len(self.ids), items) for name, column in self._columns.items()}
        described = np.concatenate([self._described, np.array([item is not None for item in items], dtype=np.bool_)])
        return Catalogue(all_ids, all_items, rows, deleted, columns, described, (*self._ancestors, self._token)[-ANCESTORS_KNOWN:])

    def _mask(self, asked: Conditions) -> Mask:
        mask = self.alive.copy()
        if asked.available_only:
            mask[self._column("unavailable", _unavailable).rows_of(["true"])] = False
        if asked.use_case_type is not None:
            mask &= self._any("type", _types, [asked.use_case_type])
        if asked.item_types:
            mask &= self._any("type", _types, asked.item_types)
        if asked.categories:
            mask &= self._any("category", _categories, asked.categories)
        for one in asked.attributes:
            self._narrow(mask, one)
        return mask

    def _narrow(self, mask: Mask, one: AttributeFilter) -> None:
        def read(item: Item) -> Value:
            return item.attributes.get(one.name)

        name = "attribute:" + one.name
        if isinstance(one.equals, list):
            candidates = self._any(name, read, one.equals[:1]) if one.equals else self.alive
            exact = np.zeros(len(mask), dtype=np.bool_)
            only = AttributeFilter(name=one.name, equals=one.equals)
            for row in np.flatnonzero(candidates & mask).tolist():
                item = self.items[row]
                exact[row] = item is not None and attribute_passes(read(item), only)
            mask &= exact
        elif one.equals is not None:
            mask &= self._any(name, read, texts(one.equals))
        if one.one_of is not None:
            mask &= self._any(name, read, one.one_of)
        if one.low is not None or one.high is not None:
            numbers = self._column(name, read).numbers
            mask &= (numbers >= (-np.inf if one.low is None else one.low)) & (numbers <= (np.inf if one.high is None else one.high))

    def _any(self, name: str, read: Callable[[Item], Value], wanted: Sequence[str]) -> Mask:
        mask = np.zeros(len(self.ids), dtype=np.bool_)
        mask[self._column(name, read).rows_of(wanted)] = True
        return mask

    def _column(self, name: str, read: Callable[[Item], Value]) -> _Column:
        column = self._columns.get(name)
        if column is None:
            column = _Column(read, {}, np.zeros(0)).extended(0, self.items)
            if len(self._columns) < COLUMNS_KEPT:
                self._columns[name] = column
        return column


class _Column:
    """One field of every row: `rows_of` by text, and `numbers` (n_rows,) f64, NaN where there is none."""

    __slots__ = ("_rows", "numbers", "read")

    def __init__(self, read: Callable[[Item], Value], rows: dict[str, Rows], numbers: NDArray[np.float64]) -> None:
        self.read, self._rows, self.numbers = read, rows, numbers

    def extended(self, start: int, items: Sequence[Item | None]) -> _Column:
        """This column with the rows `start`, `start` + 1, ... for `items`."""
        added: dict[str, list[int]] = {}
        values = [None if item is None else self.read(item) for item in resting(items)]
        for row, value in enumerate(resting(values), start):
            for text in texts(value):
                added.setdefault(text, []).append(row)
        rows = dict(self._rows)
        for text, new in added.items():
            rows[text] = np.concatenate([rows.get(text, _EMPTY), np.array(new, dtype=np.int32)])
        numbers = np.array([number(value) for value in resting(values)], dtype=np.float64)
        return _Column(self.read, rows, np.concatenate([self.numbers, numbers]))

    def rows_of(self, wanted: Sequence[str]) -> Rows:
        found = [self._rows[text] for text in wanted if text in self._rows]
        return np.concatenate(found) if found else _EMPTY


def _types(item: Item) -> Value:
    return item.item_type


def _categories(item: Item) -> Value:
    return item.categories


def _unavailable(item: Item) -> Value:
    return not item.available
