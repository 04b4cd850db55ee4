"""Computes ALS factors of new items, which the live bundle's ALS part does not know.

The factors follow from the vectors of the users who interacted with the item. Lists of users and
factors are in Redis (store.state.live_shards), and every write sets whole values, so any worker may
compute any item. The leader of the workers checks all new items regularly (`check`), which finds
the work that a dead worker left.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import scipy.sparse as sp

from core.deletions import IdHasher
from core.settings import Settings
from core.types import LiveVector
from models.als import Floats
from store.state.apply import deletions
from store.state.live_shards import LiveShards
from store.state.shards import Shards
from streams import metrics
from streams.live.fold import UserFolder
from streams.live.model import Space

ITEMS = 50
"""Items refolded at once: at 200 users each, about 10,000 vectors are read."""
CHUNK = 500
"""Items checked in one step: a few milliseconds, so that hints are processed in between."""
LEAST_S = 0.1
"""Seconds from one refold of an item to the next, at least."""
PER_USER_S = 0.05
"""Seconds more for each listed user: the n-th user changes the factors by about 1/n, so the delay
may grow with n.
"""


class NewItemFolder:
    """Knows which items are to be refolded, and refolds them. For one thread at a time."""

    def __init__(
        self, settings: Settings, clients: Shards, shards: LiveShards, users: UserFolder
    ) -> None:
        """`clients`: of the same shards as `shards`."""
        self._most_users = settings.young_item_users
        self._limit, self._clients, self._shards = settings.young_items, clients, shards
        self._users = users
        self._changed: dict[str, None] = {}
        self._due_at: dict[str, float] = {}
        self._hasher = IdHasher(settings.deletion_salt)
        self._deleted: list[set[str]] = [set() for _ in clients]  # by shard, as the cursors
        self._deletions_cursors = [""] * len(clients)
        self.folded = 0
        """Items whose factors were written so far."""

    def mark_changed(self, item_ids: Iterable[str]) -> None:
        """Refold these items when they are due: their lists have changed."""
        self._changed.update(dict.fromkeys(item_ids))

    def has_due(self) -> bool:
        """Whether a changed item is due."""
        now = time.monotonic()
        return any(self._due_at.get(item_id, 0.0) <= now for item_id in self._changed)

    def refold(self, space: Space) -> None:
        """Compute and write the factors of some items that are due.

        Raises StoreUnavailable, StoreCorrupt; the items then stay due.
        """
        now = time.monotonic()
        if len(self._due_at) > self._limit + CHUNK:
            self._due_at = {item_id: due for item_id, due in self._due_at.items() if due > now}
        due_items = [item_id for item_id in self._changed if self._due_at.get(item_id, 0.0) <= now][
            :ITEMS
        ]
        new_items = [item_id for item_id in due_items if item_id not in space.model.item_ids]
        lists = dict(zip(new_items, self._shards.item_users(new_items), strict=True))
        self._write(space, lists)
        for item_id in due_items:
            del self._changed[item_id]
            self._due_at[item_id] = (
                now + LEAST_S + PER_USER_S * min(self._most_users, len(lists.get(item_id, ())))
            )

    def restart_deletions(self) -> None:
        """Apply all deletions again at the next check, because a check was not completed."""
        self._deletions_cursors = [""] * len(self._clients)

    def chunks_to_check(self, space: Space) -> list[list[str]]:
        """All new items, in chunks for `check`.

        Forgets items that the model knows by now, and the least recently touched above YOUNG_ITEMS.
        """
        item_ids = self._shards.new_items()
        known = [item_id for item_id in item_ids if item_id in space.model.item_ids]
        unknown = [item_id for item_id in item_ids if item_id not in space.model.item_ids]
        excess = max(0, len(unknown) - self._limit)
        for chunk in _chunks([*known, *unknown[:excess]]):
            self._shards.forget_items(chunk)
        self._read_deletions()
        return _chunks(unknown[excess:])

    def check(self, space: Space, item_ids: Sequence[str]) -> None:
        """Remove deleted users from the items' lists, and mark items whose factors are outdated."""
        for store, deleted in zip(self._shards, self._deleted, strict=True):
            if not deleted:
                continue
            for item_id, weights in zip(item_ids, store.item_users(item_ids), strict=True):
                store.drop_users(
                    item_id,
                    [user_id for user_id in weights if self._hasher("user", user_id) in deleted],
                )
        statuses = dict(zip(item_ids, self._shards.factors_status(item_ids), strict=True))
        self._shards.forget_items(
            [item_id for item_id, status in statuses.items() if not status.users]
        )
        self.mark_changed(
            item_id
            for item_id, status in statuses.items()
            if status.users and (status.made_with, status.as_of) != (space.made_with, status.users)
        )

    def _read_deletions(self) -> None:
        """Read the users deleted since the last check, of each shard.

        The first check reads all, because a list may have them from before this process.
        """
        for shard, client in enumerate(self._clients):
            changes = deletions.changed_users(client, self._deletions_cursors[shard])
            self._deletions_cursors[shard] = changes.cursor
            self._deleted[shard] = set(changes.digests)

    def _write(self, space: Space, lists: dict[str, dict[str, float]]) -> None:
        """Write the factors of the items in `lists`: item id -> user id -> weight.

        They are computed from the users of largest weight. Where one of these has no history any
        more, the user is dropped, so that the next check computes them again with the next one.
        """
        heaviest = {item_id: self._heaviest(weights) for item_id, weights in lists.items()}
        user_ids = list(dict.fromkeys(chain.from_iterable(heaviest.values())))
        vectors, without_history = self._vectors(space, user_ids)
        for item_id, weights in heaviest.items():
            self._shards.drop_users(item_id, without_history.intersection(weights))
        columns = {user_id: column for column, user_id in enumerate(vectors)}
        indptr, indices, values = [0], [], []
        for weights in heaviest.values():
            with_vector = [user_id for user_id in weights if user_id in columns]
            indices += [columns[user_id] for user_id in with_vector]
            values += [weights[user_id] for user_id in with_vector]
            indptr.append(len(indices))
        if not indices:
            return
        item_users = sp.csr_matrix(
            (np.array(values, dtype=np.float32), indices, indptr), shape=(len(lists), len(columns))
        )
        factors = space.model.fold_items_in(item_users, np.stack(list(vectors.values())))
        live_vectors = {
            item_id: LiveVector(
                space.version, space.made_with, len(weights), factors[row].tobytes()
            )
            for row, (item_id, weights) in enumerate(lists.items())
            if indptr[row] < indptr[row + 1]
        }
        self._shards.write_items(live_vectors)
        self.folded += len(live_vectors)
        metrics.live_items.inc(len(live_vectors))

    def _heaviest(self, weights: dict[str, float]) -> dict[str, float]:
        """The YOUNG_ITEM_USERS users of largest weight: the lists of several shards have more."""
        if len(weights) <= self._most_users:
            return weights
        ranked = sorted(weights.items(), key=lambda entry: (entry[1], entry[0]))
        return dict(ranked[-self._most_users :])

    def _vectors(self, space: Space, user_ids: Sequence[str]) -> tuple[dict[str, Floats], set[str]]:
        """User id -> vector (f,) f32, without users who have none; and who has no history."""
        size = 4 * space.model.factors
        stored = {
            user_id: vector
            for user_id, vector in self._shards.vectors(user_ids, space.made_with).items()
            if len(vector) == size
        }
        vectors: dict[str, Floats] = {
            user_id: np.frombuffer(vector, dtype="<f4").astype(np.float32)
            for user_id, vector in stored.items()
        }
        without_history: set[str] = set()
        for chunk in _chunks([user_id for user_id in user_ids if user_id not in stored]):
            for folded in self._users.fold_users(space, chunk):
                for user_id, user, vector in zip(*folded, strict=True):
                    if not user.events:
                        without_history.add(user_id)
                    if vector.any():
                        vectors[user_id] = vector
        return vectors, without_history


def _chunks(items: Sequence[str]) -> list[list[str]]:
    return [list(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
