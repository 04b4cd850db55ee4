"""Splits the training events for validation.

One item of each user is held out, and ranked among the items that the user does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from core.errors import DatasetError
from training.data.dataset import Bools, Dataset
from training.evaluation import metrics

BLOCK_USERS = 1024
"""Users scored in one block: 1024 rows of 100,000 items are 400 MB of scores."""


@dataclass(frozen=True)
class Validation:
    """The training part and the held-out items.

    `user_items (n_users, n_items)` f32 CSR without the held-out items; `users (n,)`, `items (n,)`
    int32: rows of the users and of their held-out items.

    `ordered`: it was the user's last one.
    """

    user_items: sp.csr_matrix
    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    ordered: bool


def leave_one_out(
    dataset: Dataset, seed: int, max_users: int = 10_000, where: Bools | None = None
) -> Validation:
    """Hold out the item of each user's last event with weight above 0.

    `where` (n_events,) bool: the events that exist for it; None: all.

    All other events of that user with the item are held out with it.

    When no event has a time, the order of events has no meaning (in tables it is often that of the
    ids): then `seed` draws the event. Users with a single item keep it. At most `max_users` users,
    drawn by `seed`, lose an item. Raises DatasetError when nobody has two items.
    """
    matrix = dataset.matrix(where)
    present = dataset.weight > 0 if where is None else (dataset.weight > 0) & where
    positive = np.flatnonzero(present)
    owner = dataset.user[positive]
    rng = np.random.default_rng(seed)
    ordered = not bool(np.isnan(dataset.timestamp).all())
    if not ordered:
        drawn = rng.permutation(len(positive))
        positive, owner = positive[drawn], owner[drawn]
    last = np.full(len(dataset.users), -1, np.int64)
    last[owner] = positive  # events are in log order, so a user's last one is written last
    users = np.flatnonzero((last >= 0) & (np.diff(matrix.indptr) >= 2)).astype(np.int32)
    if not len(users):
        raise DatasetError(
            "no user has two items, so none can be held out; collect more events before tuning"
        )
    if len(users) > max_users:
        users = np.sort(rng.choice(users, max_users, replace=False))
    items = dataset.item[last[users]]
    held_out = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=matrix.shape)
    remaining = matrix - matrix.multiply(held_out)
    remaining.eliminate_zeros()
    remaining.sort_indices()
    return Validation(remaining.tocsr(), users, items, ordered)


def ranks(
    validation: Validation,
    user_factors: npt.NDArray[np.float32],
    item_factors: npt.NDArray[np.float32],
    user_rows: npt.NDArray[np.int32],
    item_rows: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(n,) number of items that rank above each held-out one, and (n,) number of ranked items.

    Ties count as above.

    `user_rows (n_users,)`, `item_rows (n_items,)`: the factor row of each row and column of the
    matrix, -1 where it has none; an item without factors cannot be recommended, so a held-out one
    ranks last.
    """
    better = np.empty(len(validation.users), np.int64)
    candidates = np.empty(len(validation.users), np.int64)
    shown = np.flatnonzero(item_rows >= 0)
    for start in range(0, len(validation.users), BLOCK_USERS):
        block = slice(start, start + BLOCK_USERS)
        users, targets = validation.users[block], item_rows[validation.items[block]]
        scores = user_factors[user_rows[users]] @ item_factors.T
        own = np.where(targets >= 0, scores[np.arange(len(users)), targets], -np.inf)
        seen = validation.user_items[users][:, shown].tocoo()
        scores[seen.row, item_rows[shown][seen.col]] = -np.inf
        candidates[block] = (
            len(shown) - np.bincount(seen.row, minlength=len(users)) - (targets >= 0)
        )
        above = (scores >= own[:, None]).sum(axis=1) - 1
        better[block] = np.where(targets >= 0, above, candidates[block])
    return better, candidates


def gains(
    better: npt.NDArray[np.int64], candidates: npt.NDArray[np.int64], negatives: int, k: int = 10
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(n,) HR@k and (n,) NDCG@k of one held-out item a user.

    `negatives`: number of sampled candidates, for which the expected values are computed; 0: the
    whole catalogue.
    """
    if negatives:
        return metrics.sampled_rank_gain(better, candidates, negatives, k)
    hit = (better < k).astype(np.float64)
    return hit, hit / np.log2(better + 2.0)
