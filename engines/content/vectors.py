"""TF-IDF vectors of the catalogue's items, by row, and fast access to the entries of a few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from core.process.background import pause, with_pauses
from core.types import Item
from engines.base import Scores
from models.content import ContentModel

Sources = NDArray[np.int64]
Bools = NDArray[np.bool_]
NO_VECTOR = -1
_NOTHING: Scores = np.zeros(1, dtype=np.float32)
"""The product of an item without a vector, at the end: NO_VECTOR."""


class Entries(NamedTuple):
    """Entries of some rows of a sparse matrix.

    `owners`: for each entry, the index of its row among them.
    """

    columns: NDArray[np.int32]
    values: Scores
    owners: NDArray[np.int64]

    def dense(self, columns: NDArray[np.int32], rows: int) -> Scores:
        """The entries in `columns` (sorted, distinct) as a dense array (rows, n_columns) f32."""
        out = np.zeros((rows, len(columns)), dtype=np.float32)
        if len(columns):
            at = np.minimum(np.searchsorted(columns, self.columns), len(columns) - 1)
            there = columns[at] == self.columns
            out[self.owners[there], at[there]] = self.values[there]
        return out


NO_ENTRIES = Entries(
    np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
)


class Sparse:
    """The non-zero columns of a dense vector, and their values."""

    __slots__ = ("columns", "values")

    def __init__(self, dense: Scores) -> None:
        self.columns = np.flatnonzero(dense).astype(np.int32)
        self.values = dense[self.columns]


class ItemVectors:
    """TF-IDF vectors of a catalogue's items by row. Immutable.

    An item that did not change since the training has the model's own vector, which is not copied:
    processes that map the model's arrays share them. Others are vectorised.
    """

    def __init__(self, model: ContentModel, added: sp.csr_matrix, sources: Sources) -> None:
        """`added` (n, n_terms) f32 CSR; `sources` (n_rows,): the row of each item among the vectors
        of the model and then those `added`, NO_VECTOR for none.
        """
        self._model, self._added, self._sources = model, added, sources
        self._trained: sp.csr_matrix = model.item_vectors
        terms = [np.diff(self._trained.indptr), np.diff(added.indptr), np.zeros(1, dtype=np.int32)]
        self._parts = [(self._trained, 0)]
        if added.shape[0]:
            self._parts.append((added, self._trained.shape[0]))
        self.known: Bools = np.concatenate(terms)[sources] > 0
        """(n_rows,): whether the vector has a term."""

    @classmethod
    def of(
        cls, model: ContentModel, items: Sequence[Item | None], trained: Mapping[str, Item]
    ) -> ItemVectors:
        """Those of `items`; a None has none. `trained`: id -> the item that the model knows."""
        none = sp.csr_matrix((0, len(model.terms)), dtype=np.float32)
        return cls(model, none, np.zeros(0, dtype=np.int64)).with_items(items, trained)

    def with_items(
        self, items: Sequence[Item | None], trained: Mapping[str, Item] | None = None
    ) -> ItemVectors:
        """With more rows, of `items`; without `trained` all of them are vectorised."""
        if not items:
            return self
        model, known = self._model, {} if trained is None else trained
        described = np.array([item is not None for item in items], dtype=np.bool_)
        unchanged = [
            item.item_id if item is not None and known.get(item.item_id) == item else ""
            for item in with_pauses(items)
        ]
        pause()
        sources = model.item_ids.rows(unchanged).astype(np.int64)
        pause()
        fresh = np.flatnonzero(described & (sources < 0))
        first = self._trained.shape[0] + self._added.shape[0]
        sources[fresh] = first + np.arange(len(fresh))
        changed = [item for row in fresh.tolist() if (item := items[row]) is not None]
        added = self._added
        if changed:
            added = sp.vstack([added, model.vectors(changed)], format="csr", dtype=np.float32)
        return ItemVectors(model, added, np.concatenate([self._sources, sources]))

    def products(self, profile: Scores) -> Scores:
        """(n_rows,) f32: the product of each vector and `profile` (n_terms,) f32."""
        parts = [matrix @ profile for matrix, _ in self._parts]
        products: Scores = np.concatenate([*parts, _NOTHING]).take(self._sources, mode="wrap")
        return products

    def entries(self, rows: Sequence[int]) -> Entries:
        """The entries of `rows`.

        scipy's own row selection costs several times as much for a few rows.
        """
        if not rows:
            return NO_ENTRIES
        sources, indices = self._sources.take(rows), np.arange(len(rows))
        columns, values, owners = [], [], []
        for matrix, first in self._parts:
            # a row of another part is clipped to an end of this one, where it has no entries
            begins = matrix.indptr.take(sources - first, mode="clip")
            ends = matrix.indptr.take(sources - first + 1, mode="clip")
            owners.append(np.repeat(indices, ends - begins))
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                columns.append(matrix.indices[begin:end])
                values.append(matrix.data[begin:end])
        return Entries(np.concatenate(columns), np.concatenate(values), np.concatenate(owners))

    def dense(self, row: int) -> Scores:
        """The vector (n_terms,) f32 of a row."""
        vector = np.zeros(self._trained.shape[1], dtype=np.float32)
        own = self.entries([row])
        vector[own.columns] = own.values
        return vector
