"""Sums the weights of users' events with items, some users at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.data.columns import PIECE, release

Bools = npt.NDArray[np.bool_]


def by_pair(
    indptr: npt.NDArray[np.int64],
    item: npt.NDArray[np.int32],
    items: int,
    weight: npt.NDArray[np.float32] | None,
    where: Bools | None,
) -> sp.csr_matrix:
    """(n_users, items) float32 CSR, the items of a user in order.

    The summed `weight` of the events of user u, indptr[u] to indptr[u+1], that are in `where`
    (None: all) and weigh more than 0. `weight` None: each weighs 1. The memory grows with the pairs
    of a user and an item: 16 bytes for each.
    """
    blocks = []
    for users, events in _blocks(indptr):
        selected = np.ones(events.stop - events.start, np.bool_)
        if where is not None:
            selected = where[events]
        if weight is not None:
            selected = selected & (weight[events] > 0)
        cells = item[events][selected]
        values = np.ones(len(cells), np.float32) if weight is None else weight[events][selected]
        rows = np.concatenate([[0], np.cumsum(selected)])[
            indptr[users.start : users.stop + 1] - events.start
        ]
        matrix = sp.csr_matrix((values, cells, rows), shape=(users.stop - users.start, items))
        summed = matrix.tocsc().tocsr()  # converting twice orders the items without a sort
        summed.sum_duplicates()
        blocks.append(summed)
        for array in (item, weight):
            if array is not None:
                release(array)
    return blocks[0] if len(blocks) == 1 else sp.vstack(blocks, format="csr")


def _blocks(indptr: npt.NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Users that follow each other, with PIECE events or a single user; and their events."""
    start, users = 0, len(indptr) - 1
    while start < users:
        most = int(np.searchsorted(indptr, indptr[start] + PIECE, side="right")) - 1
        end = max(start + 1, most)
        yield slice(start, end), slice(int(indptr[start]), int(indptr[end]))
        start = end
