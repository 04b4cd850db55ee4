"""Folds the users that hints name in: reads their histories, computes and writes their vectors.

New items are those that the live bundle's ALS part does not know. A user's events with one go to
the item's list of users; its factors follow from that list (streams/live/new_items.py) and never
enter a user's vector. So the vector stays a function of the log and the bundle alone. This module
does not use Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np
import structlog

from core.settings import Settings
from core.types import LiveVector
from engines.base import item_weights
from models.als import Floats
from store.log.model_updates import Pair
from store.state.entities.users import history_event
from store.state.entities.vectors import ItemWeight, LiveStore, UserHistory
from streams import metrics
from streams.live.model import Space

_log = structlog.get_logger(__name__)

_TRIES = 10
"""Times that users are read again because one of them was deleted between read and write."""


class UserFolder:
    """Folds users in. For one thread at a time."""

    def __init__(self, settings: Settings, store: LiveStore) -> None:
        self._settings, self._store = settings, store
        self.folded = 0
        """Vectors written so far."""

    def fold(self, space: Space, pairs: Iterable[Pair]) -> list[str]:
        """Update the vectors of the users in `pairs`; returns the new items whose lists changed.

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
        for batch in _batches(new_items_by_user, self._settings.live_batch_users):
            self.fold_users(space, list(batch), partial(self._weights, batch))
            changed.update(dict.fromkeys(item_id for items in batch.values() for item_id in items))
        return list(changed)

    def fold_users(
        self,
        space: Space,
        user_ids: Sequence[str],
        weights: Callable[[Sequence[UserHistory]], Iterable[ItemWeight]] = lambda _: (),
    ) -> tuple[list[UserHistory], Floats]:
        """Read, fold in and write these users; `weights` computes their weights of new items.

        Returns the states as read, and the vectors (n_users, f) f32: zeros for a user without an
        item that the model knows.
        """
        users: list[UserHistory] = []
        vectors = np.zeros((0, space.model.factors), dtype=np.float32)
        for _ in range(_TRIES):
            users = self._store.read(user_ids)
            vectors, has_items = space.lines.vectors([user.history for user in users])
            fresh = {
                user_ids[row]: LiveVector(
                    space.version, space.made_with, users[row].events, vectors[row].tobytes()
                )
                for row in np.flatnonzero(has_items).tolist()
            }
            if self._store.write(fresh, weights(users)):
                self.folded += len(fresh)
                metrics.live_users.inc(len(fresh))
                break
            metrics.live_retries.labels("deletion").inc()
        else:
            _log.warning("fold_in_skipped", cause="deletions", users=len(user_ids), tries=_TRIES)
        return users, vectors

    def _weights(
        self, new_items_by_user: Mapping[str, list[str]], users: Sequence[UserHistory]
    ) -> Iterable[ItemWeight]:
        """The users' weights in the lists of their new items, from the histories as they stand.

        So a hint that is processed twice writes the same weights.
        """
        for (user_id, items), user in zip(new_items_by_user.items(), users, strict=True):
            if items:
                weights = item_weights(
                    [history_event(line) for line in user.history], self._settings.use_cases
                )
                for item_id in dict.fromkeys(items):
                    if item_id in weights:
                        yield ItemWeight(item_id, user_id, weights[item_id])


def _batches(users: Mapping[str, list[str]], size: int) -> Iterable[dict[str, list[str]]]:
    entries = iter(users.items())
    while batch := dict(islice(entries, size)):
        yield batch
