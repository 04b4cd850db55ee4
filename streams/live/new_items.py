"""New items: those that the live bundle's ALS part does not know get factors from the users who
touched them.

Lists and factors lie in Redis and every write is absolute, so any worker may refold any item; what
a worker had still to do when it died is found by `tend`, which the leader runs over all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse as sp

from core.deletions import IdHasher
from core.settings import Settings
from core.types import LiveVector
from models.als import Floats
from store.state.apply import deletions
from store.state.connection import Client
from store.state.entities.vectors import LiveStore
from streams import metrics
from streams.live.fold import Folder
from streams.live.model import Space

ITEMS = 50
"""Items refolded at once: at 200 users each some 10,000 vectors are read."""
CHUNK = 500
"""Items looked at in one step: a few milliseconds, so that folding goes on between."""
LEAST_S = 0.1
"""Seconds from one refold of an item to the next, at the least."""
PER_USER_S = 0.05
"""Seconds more for each listed user: the n-th user moves the factors by about 1/n, so they may wait
in proportion to n.
"""


class NewItemFolder:
    """Which items wait to be refolded, and the work itself. For one thread at a time."""

    def __init__(
        self, settings: Settings, client: Client, store: LiveStore, folder: Folder
    ) -> None:
        self._most, self._client, self._store, self._folder = (
            settings.young_items,
            client,
            store,
            folder,
        )
        self._waiting: dict[str, None] = {}
        self._not_before: dict[str, float] = {}
        self._hasher = IdHasher(settings.deletion_salt)
        self._deleted: set[str] = set()
        self._cursor = ""
        self.folded = 0

    def note(self, item_ids: Iterable[str]) -> None:
        """Their lists have changed."""
        self._waiting.update(dict.fromkeys(item_ids))

    def due(self) -> bool:
        """Whether an item's time has come."""
        now = time.monotonic()
        return any(self._not_before.get(item_id, 0.0) <= now for item_id in self._waiting)

    def refold(self, space: Space) -> None:
        """Some items whose time has come.

        Raises StoreUnavailable, StoreCorrupt; they then wait on.
        """
        now = time.monotonic()
        if len(self._not_before) > self._most + CHUNK:
            self._not_before = {
                item_id: when for item_id, when in self._not_before.items() if when > now
            }
        chosen = [
            item_id for item_id in self._waiting if self._not_before.get(item_id, 0.0) <= now
        ][:ITEMS]
        items = [item_id for item_id in chosen if item_id not in space.model.item_ids]
        lists = dict(zip(items, self._store.item_users(items), strict=True))
        self._write(space, lists)
        for item_id in chosen:
            del self._waiting[item_id]
            self._not_before[item_id] = now + LEAST_S + PER_USER_S * len(lists.get(item_id, ()))

    def distrust(self) -> None:
        """Look for deleted users again: a round of `tend` was broken off."""
        self._cursor = ""

    def overdue(self, space: Space) -> list[list[str]]:
        """Every new item, in chunks for `tend`.

        Those that are new no more, or too many, are forgotten here.
        """
        listed = self._store.new_items()
        known = [item_id for item_id in listed if item_id in space.model.item_ids]
        unknown = [item_id for item_id in listed if item_id not in space.model.item_ids]
        too_many = max(0, len(unknown) - self._most)
        for chunk in _chunks([*known, *unknown[:too_many]]):
            self._store.forget_items(chunk)
        self._note_deletions()
        return _chunks(unknown[too_many:])

    def tend(self, space: Space, items: Sequence[str]) -> None:
        """Drop deleted users from these items' lists, and note whose factors are not those of the
        list.
        """
        if self._deleted:
            for item_id, listed in zip(items, self._store.item_users(items), strict=True):
                self._store.drop_users(
                    item_id,
                    [
                        user_id
                        for user_id in listed
                        if self._hasher("user", user_id) in self._deleted
                    ],
                )
        statuses = dict(zip(items, self._store.factors_status(items), strict=True))
        self._store.forget_items(
            [item_id for item_id, status in statuses.items() if not status.users]
        )
        self.note(
            item_id
            for item_id, status in statuses.items()
            if status.users and (status.made_with, status.as_of) != (space.made_with, status.users)
        )

    def _note_deletions(self) -> None:
        """Who was deleted since the last time; at first everyone, because a list may hold them
        since before this process.
        """
        news = deletions.changed_users(self._client, self._cursor)
        self._cursor, self._deleted = news.cursor, set(news.digests)

    def _write(self, space: Space, lists: dict[str, dict[str, float]]) -> None:
        users = list(dict.fromkeys(user_id for listed in lists.values() for user_id in listed))
        vectors, gone = self._vectors(space, users)
        for item_id, listed in lists.items():
            left = gone.intersection(listed)
            self._store.drop_users(item_id, left)
            for user_id in left:
                del listed[user_id]
        columns = {user_id: column for column, user_id in enumerate(vectors)}
        indptr, indices, weights = [0], [], []
        for listed in lists.values():
            used = [user_id for user_id in listed if user_id in columns]
            indices += [columns[user_id] for user_id in used]
            weights += [listed[user_id] for user_id in used]
            indptr.append(len(indices))
        if not indices:
            return
        item_users = sp.csr_matrix(
            (np.array(weights, dtype=np.float32), indices, indptr), shape=(len(lists), len(columns))
        )
        factors = space.model.fold_items_in(item_users, np.stack(list(vectors.values())))
        made = {
            item_id: LiveVector(space.version, space.made_with, len(listed), factors[row].tobytes())
            for row, (item_id, listed) in enumerate(lists.items())
            if indptr[row] < indptr[row + 1]
        }
        self._store.write_items(made)
        self.folded += len(made)
        metrics.live_items.inc(len(made))

    def _vectors(self, space: Space, users: Sequence[str]) -> tuple[dict[str, Floats], set[str]]:
        """The vectors (f,) f32 of those users who have one, and who has no history any more."""
        size = 4 * space.model.factors
        held = {
            user_id: vector
            for user_id, vector in self._store.vectors(users, space.made_with).items()
            if len(vector) == size
        }
        vectors: dict[str, Floats] = {
            user_id: np.frombuffer(vector, dtype="<f4").astype(np.float32)
            for user_id, vector in held.items()
        }
        gone: set[str] = set()
        for chunk in _chunks([user_id for user_id in users if user_id not in held]):
            seen, folded = self._folder.fold_users(space, chunk)
            gone.update(
                user_id for user_id, user in zip(chunk, seen, strict=True) if not user.events
            )
            vectors.update(
                {
                    user_id: vector
                    for user_id, vector in zip(chunk, folded, strict=True)
                    if vector.any()
                }
            )
        return vectors, gone


def _chunks(items: Sequence[str]) -> list[list[str]]:
    return [list(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]
