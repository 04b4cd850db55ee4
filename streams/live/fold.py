"""Folds the users that hints name in: reads their histories, computes and writes their vectors.

New items are those that the live bundle's ALS part does not know. A user's events with one go to
the item's list of users; its factors follow from that list (streams/live/new_items.py) and never
enter a user's vector. So the vector stays a function of the log and the bundle alone. This module
does not use Kafka.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import structlog

from core.settings import Settings
from core.types import LiveVector
from engines.base import item_weights
from models.als import Floats
from store.log.model_updates import Pair
from store.state.entities.users import history_event
from store.state.entities.vectors import ItemWeight, LiveStore, UserHistory
from store.state.live_shards import LiveShards
from streams import metrics
from streams.live.model import Space

_log = structlog.get_logger(__name__)

_STEP = 100
"""Users folded in between two looks at the clock: some 10 ms."""
_TRIES = 10
"""Times that users are read again because one of them was deleted between read and write."""


class FoldedUsers(NamedTuple):
    """Users of one shard: their states as read, and their vectors (n_users, f) f32.

    The vector of a user without an item that the model knows is zero.
    """

    user_ids: Sequence[str]
    users: list[UserHistory]
    vectors: Floats


class UserFolder:
    """Folds users in. For one thread at a time."""

    def __init__(self, settings: Settings, shards: LiveShards) -> None:
        self._settings, self._shards = settings, shards
        self.folded = 0
        """Vectors written so far."""

    def fold(self, space: Space, pairs: Iterable[Pair], until: float = math.inf) -> list[str]:
        """Update the vectors of users in `pairs`; returns the new items whose lists changed.

        They are the users with a new item, and those who are being read, the latest read first, as
        far as they are reached before `until` (time.perf_counter()). Reads fold in all others.
        Raises StoreUnavailable, StoreCorrupt, ValueError (a history that Eddyline did not write).
        """
        known = space.model.item_ids
        folds_new_items = self._settings.young_items > 0 and space.model.user_gram is not None
        new_items_by_user: dict[str, list[str]] = {}
        for user_id, item_id in pairs:
            new_items = new_items_by_user.setdefault(user_id, [])
            if folds_new_items and item_id not in known:
                new_items.append(item_id)
        changed: dict[str, None] = {}
        with_new = {user_id: items for user_id, items in new_items_by_user.items() if items}
        for batch in _batches(with_new, self._settings.live_batch_users):
            self.fold_users(space, list(batch), batch)
            changed.update(dict.fromkeys(item_id for items in batch.values() for item_id in items))
        others = [user_id for user_id, items in new_items_by_user.items() if not items]
        self._fold_until(space, self._being_read(others), until)
        return list(changed)

    def fold_readers(self, space: Space, since: float, until: float = math.inf) -> None:
        """Update the vectors of the users who were noted since `since`, where they are not fresh.

        `since`: seconds since 1970; `until` and errors: as for `fold`.
        """
        user_ids = self._shards.read_since(since)
        self._fold_until(space, self._shards.not_fresh(user_ids, space.made_with), until)

    def fold_users(
        self,
        space: Space,
        user_ids: Sequence[str],
        new_items: Mapping[str, Sequence[str]] | None = None,
    ) -> list[FoldedUsers]:
        """Read, fold in and write these users, shard by shard; returns them by shard.

        `new_items`: by user id, the new items in whose lists the user is to be.
        """
        return [
            self._fold_shard(space, store, of_shard, new_items or {})
            for store, of_shard in self._shards.by_shard(user_ids)
        ]

    def _fold_shard(
        self,
        space: Space,
        store: LiveStore,
        user_ids: Sequence[str],
        new_items: Mapping[str, Sequence[str]],
    ) -> FoldedUsers:
        users: list[UserHistory] = []
        vectors = np.zeros((0, space.model.factors), dtype=np.float32)
        for _ in range(_TRIES):
            users = store.read(user_ids)
            vectors, has_items = space.lines.vectors([user.history for user in users])
            fresh = {
                user_ids[row]: LiveVector(
                    space.version, space.made_with, users[row].events, vectors[row].tobytes()
                )
                for row in np.flatnonzero(has_items).tolist()
            }
            if store.write(fresh, self._weights(new_items, user_ids, users)):
                self.folded += len(fresh)
                metrics.live_users.inc(len(fresh))
                break
            metrics.live_retries.labels("deletion").inc()
        else:
            _log.warning("fold_in_skipped", cause="deletions", users=len(user_ids), tries=_TRIES)
        return FoldedUsers(user_ids, users, vectors)

    def _being_read(self, user_ids: list[str]) -> list[str]:
        """Those of the users whom a read has noted within LIVE_READ_S, the latest first."""
        remember_s = self._settings.live_read_s
        if not remember_s:
            return user_ids
        since = time.time() - remember_s
        times = self._shards.read_at(user_ids)
        being_read = sorted(
            ((at, user_id) for user_id, at in times.items() if at > since), reverse=True
        )
        metrics.live_users_skipped.labels("not_read").inc(len(user_ids) - len(being_read))
        return [user_id for _, user_id in being_read]

    def _fold_until(self, space: Space, user_ids: Sequence[str], until: float) -> None:
        """Fold in these users in order, as far as they are reached before `until`."""
        size = min(_STEP, self._settings.live_batch_users)
        for start in range(0, len(user_ids), size):
            if time.perf_counter() > until:
                metrics.live_users_skipped.labels("busy").inc(len(user_ids) - start)
                return
            self.fold_users(space, user_ids[start : start + size])

    def _weights(
        self,
        new_items: Mapping[str, Sequence[str]],
        user_ids: Sequence[str],
        users: Sequence[UserHistory],
    ) -> Iterable[ItemWeight]:
        """The users' weights in the lists of their new items, from the histories as they stand.

        So a hint that is processed twice writes the same weights.
        """
        for user_id, user in zip(user_ids, users, strict=True):
            if user_id not in new_items:
                continue
            weights = item_weights(
                [history_event(line) for line in user.history], self._settings.use_cases
            )
            for item_id in dict.fromkeys(new_items[user_id]):
                if item_id in weights:
                    yield ItemWeight(item_id, user_id, weights[item_id])


def _batches(users: Mapping[str, list[str]], size: int) -> Iterable[dict[str, list[str]]]:
    entries = iter(users.items())
    while batch := dict(islice(entries, size)):
        yield batch
