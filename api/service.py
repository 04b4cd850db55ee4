"""What the routes stand on: the live view, users' states, the log, health. Started and stopped by the app's lifespan."""

from __future__ import annotations

import asyncio
import threading

import structlog

from api.health import Health
from api.live import LiveView
from api.metrics import Metrics
from core.errors import LogUnavailable, StoreCorrupt, StoreUnavailable
from core.settings import Settings
from core.types import UserState
from engines.recommender import Recommender
from store.connection import connect_async
from store.log import Producer, ensure_topics
from store.reader import UserReader

_log = structlog.get_logger(__name__)
PARTS = ("redis", "kafka", "model")
BROKER_CHECK_S = 2.0
"""Seconds between two questions to the broker; one is a small round trip."""
DELIVERY_SHARE = 0.7
"""Share of the time a request may take that a delivery may: the rest is for saying that it failed."""


class Service:
    """One per app. Construction connects nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.health = Health(self.metrics, PARTS)
        self.view = LiveView(settings, self.health, self.metrics)
        self.delivery_timeout_s = settings.api_timeout_s * DELIVERY_SHARE
        self._producer: Producer | None = None
        self._reader: UserReader | None = None
        self._stopping = threading.Event()
        self._broker_watch = threading.Thread(target=self._watch_broker, name="broker-watch", daemon=True)

    @property
    def live(self) -> Recommender:
        """What answers now; take it once per request."""
        return self.view.current

    @property
    def producer(self) -> Producer:
        """The producer of the running app."""
        assert self._producer is not None, "the app's lifespan has not begun"
        return self._producer

    async def start(self) -> None:
        """Load the bundle, catalogue and popularity once, then keep them fresh. Starts without bundle, Redis or broker, too."""
        self._redis = connect_async(self.settings, self.settings.api_redis_timeout_s)
        self._reader = UserReader(self._redis, self.settings.history_cap, self.settings.api_redis_timeout_s)
        self._producer = Producer(self.settings, delivery_timeout_s=self.delivery_timeout_s)
        self._broker_watch.start()
        await asyncio.to_thread(self.view.refresh)
        self.view.start()

    async def stop(self) -> None:
        """Stop the threads, deliver what was accepted, close the connections. The broker's watch ends by itself, within BROKER_CHECK_S."""
        self._stopping.set()
        await asyncio.to_thread(self.view.stop)
        if self._reader is not None:
            await self._reader.close()
            await self._redis.aclose()
        try:
            await asyncio.to_thread(self.producer.close)
        except LogUnavailable as error:
            _log.warning("closing the producer", cause=str(error))

    async def user_state(self, user_id: str) -> UserState | None:
        """The user's state, or None when it cannot be read: the cause is in Health and the log.

        While Redis is known to fail nobody waits for it: the refresher, which asks it every REFRESH_S, closes that circuit.
        """
        assert self._reader is not None, "the app's lifespan has not begun"
        if self.health.failing("redis") is not None:
            return None
        try:
            return await self._reader.read(user_id)
        except StoreUnavailable as error:
            self.health.failed("redis", str(error))
        except StoreCorrupt as error:
            _log.error("a user cannot be read", user_id=user_id, cause=str(error))
        return None

    def _watch_broker(self) -> None:
        """Ask the broker every BROKER_CHECK_S whether it is there; when it has come (back), make sure that our topics are."""
        topics_known = False
        while True:
            try:
                self.producer.check(BROKER_CHECK_S)
                if not topics_known:
                    ensure_topics(self.settings)
                    topics_known = True
                self.health.works("kafka")
            except LogUnavailable as error:
                topics_known = False
                self.health.failed("kafka", str(error))
            if self._stopping.wait(BROKER_CHECK_S):
                return
