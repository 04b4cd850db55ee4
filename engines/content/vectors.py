"""TF-IDF vectors of the catalogue's items, by row, and fast access to the entries of a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from core.process.background import pause, with_pauses
from core.types import Item
from engines.base import Scores
from models.content import ContentModel


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


def entries(vectors: sp.csr_matrix, rows: Sequence[int]) -> Entries:
    """The entries of `rows` in `vectors`.

    scipy's own row selection costs several times as much for a few rows.
    """
    if not rows:
        return NO_ENTRIES
    indptr, indices, data = vectors.indptr, vectors.indices, vectors.data
    ends = [(int(indptr[row]), int(indptr[row + 1])) for row in rows]
    owners = np.repeat(np.arange(len(rows)), [end - start for start, end in ends])
    return Entries(
        np.concatenate([indices[start:end] for start, end in ends]),
        np.concatenate([data[start:end] for start, end in ends]),
        owners,
    )


def item_vectors(
    model: ContentModel, items: Sequence[Item | None], trained: dict[str, Item]
) -> sp.csr_matrix:
    """Vectors (n, n_terms) f32 CSR of `items`, zeros for None.

    An item that did not change since the training, which `trained` tells by id, has the model's own
    vector; others are vectorised.
    """
    described = np.array([item is not None for item in items], dtype=np.bool_)
    unchanged = [
        item.item_id if item is not None and trained.get(item.item_id) == item else ""
        for item in with_pauses(items)
    ]
    pause()
    sources = model.item_ids.rows(unchanged)
    pause()
    fresh = described & (sources < 0)
    sources[fresh] = len(model.item_ids) + np.arange(np.count_nonzero(fresh))
    new = model.vectors(
        [
            item
            for item, is_fresh in zip(items, fresh.tolist(), strict=True)
            if is_fresh and item is not None
        ]
    )
    empty = sp.csr_matrix((1, len(model.terms)), dtype=np.float32)
    stacked = sp.vstack([model.item_vectors, new, empty], format="csr", dtype=np.float32)
    sources[sources < 0] = stacked.shape[0] - 1
    return sp.csr_matrix(stacked[sources])
