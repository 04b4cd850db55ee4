"""What a live worker does with hints: reads the users they name, folds them in, and writes their
vectors. No Kafka in here.

New items are those that the live bundle's ALS part does not know. A user's events with one go to
the item's list; its factors follow from that list (streams/live/new_items.py) and never enter a
user's vector, which so stays a function of the log and the bundle alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""Times that users are read again because somebody was deleted meanwhile; then they are left to the
readers.
"""


class Folder:
    """Folds users in. For one thread at a time."""

    def __init__(self, settings: Settings, store: LiveStore) -> None:
        self._settings, self._store = settings, store
        self.folded = 0

    def fold(self, space: Space, pairs: Iterable[Pair]) -> list[str]:
        """Bring the vectors of these users up to date; answers the new items that were touched.

        Raises StoreUnavailable, StoreCorrupt, ValueError (a history that Eddyline did not write).
        """
        known = space.model.item_ids
        folds_new_items = self._settings.young_items > 0 and space.model.user_gram is not None
        users: dict[str, list[str]] = {}
        for user_id, item_id in pairs:
            items = users.setdefault(user_id, [])
            if folds_new_items and item_id not in known:
                items.append(item_id)
        touched: dict[str, None] = {}
        for part in _parts(users, self._settings.live_batch_users):
            self.fold_users(space, list(part), lambda seen, part=part: self._touched(part, seen))  # type: ignore[misc]
            touched.update(dict.fromkeys(item_id for items in part.values() for item_id in items))
        return list(touched)

    def fold_users(
        self,
        space: Space,
        user_ids: Sequence[str],
        touched: Callable[[Sequence[UserHistory]], Iterable[ItemWeight]] = lambda _: (),
    ) -> tuple[list[UserHistory], Floats]:
        """Read, fold in and write these users; `touched` says what their histories do to new
        items.

        Answers what was read, and the vectors (n_users, f) f32: zeros for a user who touched no
        item that the model knows.
        """
        seen: list[UserHistory] = []
        vectors = np.zeros((0, space.model.factors), dtype=np.float32)
        for _ in range(_TRIES):
            seen = self._store.read(user_ids)
            vectors, counted = space.lines.vectors([user.history for user in seen])
            fresh = {
                user_ids[row]: LiveVector(
                    space.version, space.made_with, seen[row].events, vectors[row].tobytes()
                )
                for row in np.flatnonzero(counted).tolist()
            }
            if self._store.write(fresh, touched(seen)):
                self.folded += len(fresh)
                metrics.live_users.inc(len(fresh))
                break
            metrics.live_retries.labels("deletion").inc()
        else:
            _log.warning(
                "users were deleted all the while; these vectors are left to the readers",
                users=len(user_ids),
            )
        return seen, vectors

    def _touched(
        self, users: Mapping[str, list[str]], seen: Sequence[UserHistory]
    ) -> Iterable[ItemWeight]:
        """What the new items that hints name weigh in the histories as they stand: doing it twice
        changes nothing.
        """
        for (user_id, items), user in zip(users.items(), seen, strict=True):
            if items:
                weights = item_weights(
                    [history_event(line) for line in user.history], self._settings.use_cases
                )
                for item_id in dict.fromkeys(items):
                    if item_id in weights:
                        yield ItemWeight(item_id, user_id, weights[item_id])


def _parts(users: Mapping[str, list[str]], size: int) -> Iterable[dict[str, list[str]]]:
    entries = iter(users.items())
    while part := dict(islice(entries, size)):
        yield part
