"""The catalogue: an immutable table of items by row, with columns that turn filters into masks.

An update makes a new catalogue that appends rows: a changed item gets a new row and its old row
becomes dead. So data that engines have computed by row stays valid, and the cost of an update
depends on the number of changes. When a quarter of the rows is dead, the table is compacted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.types import AttributeFilter, Item, Value
from engines.cache import LruCache
from engines.selection.columns import Column, Rows
from engines.selection.filters import Conditions, attribute_passes, texts

Mask = NDArray[np.bool_]

MASK_CACHE_SIZE = 64
"""Masks of different filters in the cache: 100 KB each at 100,000 items."""
COLUMN_CACHE_SIZE = 64
"""Columns in the cache. Requests name the attributes, so the number must be bounded."""
COMPACT_FROM = 1000
"""Dead rows up to which the table is never compacted."""
ANCESTORS = 16
"""Predecessors that `extends` recognizes without a comparison of rows."""


class _Inherited(NamedTuple):
    """What a catalogue takes over from the one it extends.

    `columns`: name -> column of all rows; `described` (n_rows,) bool: rows with an item;
    `ancestors`: tokens of the predecessors, oldest first.
    """

    columns: dict[str, Column]
    described: Mask
    ancestors: tuple[object, ...]


class Catalogue:
    """Items by row. Immutable.

    `ids`, `items`: by row, with dead rows; a None in `items` is a bare item, of which only a model
    or the popularity has the id. `rows`: id -> live row. `alive` (n_rows,) bool. `deleted`: ids
    that must not be shown even if a model has them.
    """

    def __init__(
        self,
        ids: list[str],
        items: list[Item | None],
        rows: dict[str, int],
        deleted: frozenset[str],
        inherited: _Inherited | None = None,
    ) -> None:
        """`inherited`: only for `updated` and `with_bare`, which extend another catalogue."""
        if inherited is None:
            described = np.array([item is not None for item in items], dtype=np.bool_)
            inherited = _Inherited({}, described, ())
        self.ids, self.items, self.rows, self.deleted = ids, items, rows, deleted
        self._token = object()
        self._columns, self._described, self._ancestors = inherited
        self.alive: Mask = np.zeros(len(ids), dtype=np.bool_)
        self.alive[np.fromiter(rows.values(), dtype=np.int64, count=len(rows))] = True
        self._masks: LruCache[Mask] = LruCache(MASK_CACHE_SIZE)

    @classmethod
    def of(
        cls, items: Iterable[Item], bare_ids: Iterable[str] = (), deleted: Iterable[str] = ()
    ) -> Catalogue:
        """A catalogue of `items` and of `bare_ids`, which only a model or the popularity has.

        For a duplicate id the last item counts. `deleted` ids without an item are not shown.
        """
        by_id: dict[str, Item | None] = {item.item_id: item for item in items}
        hidden = frozenset(deleted) - by_id.keys()
        for item_id in bare_ids:
            if item_id not in hidden:
                by_id.setdefault(item_id, None)
        return cls(
            list(by_id),
            list(by_id.values()),
            {item_id: row for row, item_id in enumerate(by_id)},
            hidden,
        )

    def __len__(self) -> int:
        """Number of items with an entry, available or not."""
        return int(np.count_nonzero(self.alive & self._described))

    @property
    def bare(self) -> int:
        """Number of bare items."""
        return len(self.rows) - len(self)

    def updated(self, items: Iterable[Item], deleted: Iterable[str] = ()) -> Catalogue:
        """The catalogue with new or changed `items`, and then without the ids `deleted`.

        An unchanged item keeps its row; without any change the result is this catalogue.
        """
        by_id = {item.item_id: item for item in items}
        removed = set(deleted)
        changed = [
            item
            for item_id, item in by_id.items()
            if item_id not in removed and self.get(item_id) != item
        ]
        hidden = self.deleted.union(removed).difference(
            item_id for item_id in by_id if item_id not in removed
        )
        if (
            not changed
            and hidden == self.deleted
            and not any(item_id in self.rows for item_id in removed)
        ):
            return self
        return self._append([item.item_id for item in changed], list(changed), removed, hidden)

    def with_bare(self, ids: Iterable[str]) -> Catalogue:
        """The catalogue with a row for each of `ids`; a new row is bare.

        Ids in `deleted` get none.
        """
        new = list(
            dict.fromkeys(
                item_id
                for item_id in ids
                if item_id not in self.rows and item_id not in self.deleted
            )
        )
        return self._append(new, [None] * len(new), set(), self.deleted) if new else self

    def without_bare(self) -> Catalogue:
        """The catalogue without bare items."""
        if not self.bare:
            return self
        return Catalogue.of(self.entries(), deleted=self.deleted)

    def entries(self) -> list[Item]:
        """All items that have an entry."""
        return [item for row in self.rows.values() if (item := self.items[row]) is not None]

    def get(self, item_id: str) -> Item | None:
        """The item `item_id`, or None."""
        row = self.rows.get(item_id)
        return None if row is None else self.items[row]

    def extends(self, other: Catalogue) -> bool:
        """Whether all rows of `other` are the same here: data computed by row stays valid."""
        if other._token is self._token or other._token in self._ancestors:
            return True
        length = len(other.ids)
        return self.ids[:length] == other.ids and self.items[:length] == other.items

    def rows_of(self, ids: Iterable[str]) -> list[int]:
        """Live rows of `ids`, without unknown ids."""
        return [row for row in map(self.rows.get, ids) if row is not None]

    def prepare(self, previous: Catalogue) -> None:
        """Compute the columns and orders that readers of `previous` have used.

        Otherwise the first readers wait for them: tens of milliseconds at 10,000 items.
        """
        for name, column in list(previous._columns.items()):
            self._column(name, column.read)
        for name in ("newest", "created"):
            if name in previous.__dict__:
                getattr(self, name)

    def mask(self, conditions: Conditions) -> Mask:
        """(n_rows,) bool: live items that pass `conditions`. Shared: do not modify."""
        return self._masks.get(conditions.key, lambda: self._mask(conditions))

    @cached_property
    def created(self) -> NDArray[np.float64]:
        """(n_rows,) f64: creation times of the items in seconds since 1970; NaN where unknown."""
        return np.array(
            [
                np.nan if item is None or item.created_at is None else item.created_at
                for item in self.items
            ],
            dtype=np.float64,
        )

    @cached_property
    def newest(self) -> Rows:
        """Live rows (n,) int32, latest `created_at` first, then those without; ties by id."""
        items = self.items

        def age(row: int) -> tuple[float, str]:
            item = items[row]
            return (
                np.inf if item is None or item.created_at is None else -item.created_at
            ), self.ids[row]

        return np.array(sorted(self.rows.values(), key=age), dtype=np.int32)

    def _append(
        self, ids: list[str], items: list[Item | None], removed: set[str], deleted: frozenset[str]
    ) -> Catalogue:
        """The catalogue with new rows for `ids` and without the ids `removed`; may compact."""
        rows = dict(self.rows)
        rows.update(zip(ids, range(len(self.ids), len(self.ids) + len(ids)), strict=True))
        for item_id in removed:
            rows.pop(item_id, None)
        all_ids, all_items = self.ids + ids, self.items + items
        if len(all_ids) - len(rows) > max(COMPACT_FROM, len(all_ids) // 4):
            live = sorted(rows.values())
            live_ids = [all_ids[row] for row in live]
            live_rows = {item_id: row for row, item_id in enumerate(live_ids)}
            return Catalogue(live_ids, [all_items[row] for row in live], live_rows, deleted)
        columns = {
            name: column.extended(len(self.ids), items) for name, column in self._columns.items()
        }
        described = np.concatenate(
            [self._described, np.array([item is not None for item in items], dtype=np.bool_)]
        )
        ancestors = (*self._ancestors, self._token)[-ANCESTORS:]
        return Catalogue(
            all_ids, all_items, rows, deleted, _Inherited(columns, described, ancestors)
        )

    def _mask(self, conditions: Conditions) -> Mask:
        mask = self.alive.copy()
        if conditions.available_only:
            mask[self._column("unavailable", _unavailable).rows_of(["true"])] = False
        if conditions.use_case_type is not None:
            mask &= self._any("type", _types, [conditions.use_case_type])
        if conditions.item_types:
            mask &= self._any("type", _types, conditions.item_types)
        if conditions.categories:
            mask &= self._any("category", _categories, conditions.categories)
        for attribute in conditions.attributes:
            self._apply_attribute(mask, attribute)
        return mask

    def _apply_attribute(self, mask: Mask, attribute: AttributeFilter) -> None:
        """Clear the rows of `mask` that do not pass the filter `attribute`."""

        def read(item: Item) -> Value:
            return item.attributes.get(attribute.name)

        name, low, high = "attribute:" + attribute.name, attribute.low, attribute.high
        if isinstance(attribute.equals, list):
            # The index finds rows with the first text; the whole list is compared for these alone.
            candidates = (
                self._any(name, read, attribute.equals[:1]) if attribute.equals else self.alive
            )
            exact = np.zeros(len(mask), dtype=np.bool_)
            equality = AttributeFilter(name=attribute.name, equals=attribute.equals)
            for row in np.flatnonzero(candidates & mask).tolist():
                item = self.items[row]
                exact[row] = item is not None and attribute_passes(read(item), equality)
            mask &= exact
        elif attribute.equals is not None:
            mask &= self._any(name, read, texts(attribute.equals))
        if attribute.one_of is not None:
            mask &= self._any(name, read, attribute.one_of)
        if low is not None or high is not None:
            numbers = self._column(name, read).numbers
            mask &= (numbers >= (-np.inf if low is None else low)) & (
                numbers <= (np.inf if high is None else high)
            )

    def _any(self, name: str, read: Callable[[Item], Value], values: Sequence[str]) -> Mask:
        """(n_rows,) bool: rows whose column `name` has at least one of `values`."""
        mask = np.zeros(len(self.ids), dtype=np.bool_)
        mask[self._column(name, read).rows_of(values)] = True
        return mask

    def _column(self, name: str, read: Callable[[Item], Value]) -> Column:
        """The column `name`, computed by `read` on first use."""
        column = self._columns.get(name)
        if column is None:
            column = Column.of(read, self.items)
            if len(self._columns) < COLUMN_CACHE_SIZE:
                self._columns[name] = column
        return column


def _types(item: Item) -> Value:
    return item.item_type


def _categories(item: Item) -> Value:
    return item.categories


def _unavailable(item: Item) -> Value:
    return not item.available
