"""Follows popularity in Redis, in all and by window (hour, day, week)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from api.live_view.trending import Trending
from core.settings import Settings
from engines.popular import Windows
from engines.recommender import Recommender
from models.bundle import Bundle
from models.popular import Popularity
from store.state.connection import Client
from store.state.entities import popularity, trending
from store.state.keys import POPULAR_UNLABELLED


class OfShard(NamedTuple):
    """What one shard has of popularity, and of the buckets that were due."""

    top: popularity.Top
    buckets: Mapping[trending.Name, trending.Weights]


class PopularityFollower:
    """The popularity to serve: Redis' own once there is some, before that the bundle's.

    It changes only with the sums of all shards: while one of them does not answer, it stays.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = [*settings.use_cases.by_name, POPULAR_UNLABELLED]
        self._trending = Trending(self._names)
        self._served: Popularity | None = None
        self._now = 0.0
        self._due: list[trending.Name] = []

    def for_bundle(self, bundle: Bundle, previous: Popularity) -> Popularity | None:
        """The popularity to serve with a new `bundle`; None: there is none.

        `previous`: the one that is served with the bundle before.
        """
        if self._served is not None:
            return previous
        return None if bundle.popular is None else bundle.popular.scores

    def begin(self) -> None:
        """Begin a refresh: `read` each shard, then `update`."""
        self._now = time.time()
        self._due = self._trending.due(self._now)

    def read(self, client: Client) -> OfShard:
        """Read one shard. Raises StoreError."""
        buckets = trending.read(client, self._due)
        return OfShard(popularity.top(client, self._names), buckets)

    def update(
        self,
        of_shards: Sequence[OfShard],
        current: Recommender,
        serve: Callable[[Popularity, Windows], None],
    ) -> None:
        """Add up what all shards have, and `serve` it if it has changed."""
        if self._due:
            self._trending.update([of_shard.buckets for of_shard in of_shards], self._now)
        windows = self._trending.windows
        stored = popularity.merged([of_shard.top for of_shard in of_shards])
        if not any(stored.values()):
            return
        if stored == self._served and windows is current.windows:
            return
        serve(stored, windows)
        self._served = stored
