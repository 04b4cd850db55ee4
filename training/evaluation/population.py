"""Draws the users that an evaluation judges, with their states at the cut and their held-out items.

Judged are users with a new item after the cut: one with an event of weight above 0 that the user
had no event with before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from core.errors import DatasetError
from core.settings import Settings
from core.types import Filters, UserState
from engines.router import segment
from models.content import ContentModel
from models.id_map import IdMap
from training.data.dataset import Dataset, Split


@dataclass(frozen=True)
class JudgedUsers:
    """The users, and what every evaluated bundle shares.

    `users (n,) int32`: rows of the dataset, drawn by `seed` from `out_of`. `states`: as of the cut.
    `filters`: of the requests. `weights (n, n_items of the dataset)` f32 CSR: of their histories.
    `segments (n,)`: by events before the cut. `held_out (n, n_items)` CSR: new items after the cut,
    over `items`. `vectors (n_items, n_terms)` f32 CSR: content. `users_by_item (n_items,)`: users
    of each item among the `n_users` before the cut.
    """

    users: npt.NDArray[np.int32]
    states: list[UserState]
    filters: list[Filters]
    weights: sp.csr_matrix
    segments: npt.NDArray[np.str_]
    held_out: sp.csr_matrix
    items: IdMap
    vectors: sp.csr_matrix
    users_by_item: npt.NDArray[np.int64]
    n_users: int
    seed: int
    out_of: int


@dataclass(frozen=True)
class Sample:
    """At most `users` users, drawn by `seed`, of whom `reserve` are left to choose a blend.

    Half of all are drawn at least.
    """

    users: int
    seed: int
    reserve: int = 0


def draw(
    dataset: Dataset,
    split: Split,
    content: ContentModel,
    settings: Settings,
    sample: Sample,
) -> JudgedUsers:
    """Draw a `sample` of the users. `content`: fitted on the catalogue.

    Raises DatasetError when no user has a new item after the cut; the caller skips the evaluation.
    """
    before, after = (
        dataset.touched(split.train),
        dataset.touched(~split.train & (dataset.weight > 0)),
    )
    new = (after - after.multiply(before)).tocsr()
    new.eliminate_zeros()
    eligible = np.flatnonzero(np.diff(new.indptr)).astype(np.int32)
    if not len(eligible):
        raise DatasetError(
            f"no user has a new item after the cut at {split.cut:.0f}: nothing to judge by"
        )
    users = eligible
    size = min(sample.users, len(users) - min(sample.reserve, len(users) // 2))
    if len(users) > size:
        users = np.sort(np.random.default_rng(sample.seed).choice(users, size, replace=False))
    items = IdMap(list(dict.fromkeys([*dataset.items.ids, *content.item_ids.ids])))
    own = new[users]
    held_out = sp.csr_matrix((own.data, own.indices, own.indptr), shape=(len(users), len(items)))
    events = np.diff(dataset.indptr) - np.bincount(
        dataset.user[~split.train], minlength=len(dataset.users)
    )
    vectors = content.item_vectors.tocoo()
    rows = items.rows(content.item_ids.ids)[vectors.row]
    cap = settings.history_cap
    histories = [dataset.of_user(user, split.train) for user in users.tolist()]
    return JudgedUsers(
        users=users,
        states=[dataset.state(user, split.train, cap) for user in users.tolist()],
        filters=[
            Filters(available_only=False, exclude_items=_items_beyond_cap(dataset, rows[:-cap]))
            for rows in histories
        ],
        weights=_weights(dataset, [rows[-cap:] for rows in histories]),
        segments=np.array([segment(count, settings) for count in events[users].tolist()]),
        held_out=held_out,
        items=items,
        vectors=sp.csr_matrix(
            (vectors.data, (rows, vectors.col)), shape=(len(items), max(vectors.shape[1], 1))
        ),
        users_by_item=np.bincount(before.indices, minlength=len(items)),
        n_users=int((events > 0).sum()),
        seed=sample.seed,
        out_of=len(eligible),
    )


def _items_beyond_cap(dataset: Dataset, older: npt.NDArray[np.int64]) -> frozenset[str]:
    """The items of the events `older` (n,), which lie beyond the history cap.

    The user has these items, so they are no candidates.
    """
    return frozenset(dataset.items.ids[row] for row in np.unique(dataset.item[older]).tolist())


def _weights(dataset: Dataset, histories: Sequence[npt.NDArray[np.int64]]) -> sp.csr_matrix:
    """(n, n_items) f32 CSR: summed weight by item of the events (k,) of each history.

    It has entries above 0 only.
    """
    events = np.concatenate(histories)
    indptr = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    summed = sp.csr_matrix(
        (dataset.weight[events], dataset.item[events], indptr),
        shape=(len(histories), len(dataset.items)),
    )
    summed.sum_duplicates()
    summed.eliminate_zeros()
    return summed
