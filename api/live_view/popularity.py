"""Follows popularity in Redis, in all and by window (hour, day, week)."""

from __future__ import annotations

import time
from collections.abc import Callable

from core.settings import Settings
from engines.popular import Windows
from engines.recommender import Recommender
from models.bundle import Bundle
from models.popular import Popularity
from store.state.connection import Client
from store.state.entities import popularity
from store.state.entities.trending import Trending
from store.state.keys import POPULAR_UNLABELLED


class PopularityFollower:
    """The popularity to serve: Redis' own once there is some, before that the bundle's."""

    def __init__(self, settings: Settings) -> None:
        self._names = [*settings.use_cases.by_name, POPULAR_UNLABELLED]
        self._trending = Trending(self._names)
        self._served: Popularity | None = None

    def for_bundle(self, bundle: Bundle, previous: Popularity) -> Popularity | None:
        """The popularity to serve with a new `bundle`; None: there is none.

        `previous`: the one that is served with the bundle before.
        """
        if self._served is not None:
            return previous
        return None if bundle.popular is None else bundle.popular.scores

    def refresh(
        self, client: Client, current: Recommender, serve: Callable[[Popularity, Windows], None]
    ) -> None:
        """Read popularity from Redis, and `serve` it if it has changed.

        Raises StoreError.
        """
        windows = self._trending.windows(client, time.time())
        stored = popularity.top(client, self._names)
        if not any(stored.values()):
            return
        if stored == self._served and windows is current.windows:
            return
        serve(stored, windows)
        self._served = stored
