"""What all routes share: the live view, users' states, the log, health.

The app's lifespan starts and stops it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog
from prometheus_client import Metric

from api.after import ReadYourWrites
from api.health import Health
from api.live_view.view import LiveView
from api.metrics import Metrics
from api.middleware import deadline
from api.middleware.budget import Worker
from core.errors import LogUnavailable, SlotMoving, StoreCorrupt, StoreError
from core.murmur2 import partitions_of
from core.process import tracing
from core.settings import Settings
from core.types import UserState
from engines.recommender import Recommender
from store.log.access import permissions
from store.log.producer import Headers, Producer
from store.log.topics.check import TopicCheck
from store.log.topics.ids import TopicIds
from store.log.topics.partitions import Partitions
from store.state.entities.arrivals import Arrivals
from store.state.entities.entries import EntryReader
from store.state.entities.reader import UserReader
from store.state.shards import AsyncShards, shard_of_user

_log = structlog.get_logger(__name__)
PARTS = ("redis", "kafka", "model")
BROKER_CHECK_S = 2.0
"""Seconds between two checks of the broker; each is a small round trip."""
DELIVERY_SHARE = 0.5
"""Share of the time of a request after which the client library fails an event; it checks once a
second only.
"""
CONFIRM_SHARE = 0.9
"""Share after which the API stops waiting for the library: the rest is for the error answer."""


class Service:
    """One per app. Construction connects nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tolerance = msgspec.structs.replace(settings.tolerance, time_text=True)
        """What writes accept beyond the contract: times as text too, as imports do."""
        self.metrics = Metrics()
        self.render_metrics: Callable[[], bytes] = self.metrics.render
        """What /metrics answers; with several workers, the metrics of all."""
        self.metric_families: Callable[[], Iterable[Metric]] = self.metrics.registry.collect
        """The same, not as text."""
        self.end_streams: list[Callable[[], Awaitable[None]]] = []
        """Called before the server waits for the answers under way: a stream would never end."""
        self.worker = Worker(self.metrics, settings.api_expensive_waiting)
        self.health = Health(self.metrics, PARTS)
        topics = [settings.interactions_topic, settings.items_topic, settings.users_topic]
        self.partitions = Partitions(settings, topics)
        self._topic_ids = TopicIds(settings, topics)
        self._topic_check = TopicCheck(settings, permissions.of_api)
        self.view = LiveView(settings, self.health, self.metrics, self.partitions, self._topic_ids)
        self._confirm_s = settings.api_timeout_s * CONFIRM_SHARE
        self._producer: Producer | None = None
        self._reader: UserReader | None = None
        self._topics_exist = False
        self._stopping = threading.Event()
        self._broker_watch = threading.Thread(
            target=self._watch_broker, name="broker-watch", daemon=True
        )

    @property
    def live(self) -> Recommender:
        """The recommender that answers now; read it once per request."""
        return self.view.current

    @property
    def producer(self) -> Producer:
        """The producer of the running app."""
        assert self._producer is not None, "the app's lifespan has not begun"
        return self._producer

    @property
    def broker_answers(self) -> bool:
        """Whether the broker has answered, and its latest answer was no failure: a call would not
        wait for a time-out.
        """
        topic = self.settings.interactions_topic
        return self.health.failure("kafka") is None and self.partitions.count(topic) is not None

    async def start(self) -> None:
        """Load the bundle, catalogue and popularity, then keep them up to date.

        It also starts without bundle, Redis or broker.
        """
        timeout_s = self.settings.api_redis_timeout_s
        self._shards = AsyncShards(self.settings, timeout_s)
        self._reader = UserReader(self._shards, self.settings.history_cap, timeout_s)
        self.entries = EntryReader(self._shards, timeout_s)
        self._arrivals = Arrivals(self._shards, timeout_s, self._topic_ids)
        self._read_your_writes = ReadYourWrites(
            self.settings, self.view, self._arrivals, self.health, self.metrics, self.partitions
        )
        # A request waits for each message: no linger, and a result well within the request's time.
        self._producer = Producer(
            self.settings,
            delivery_timeout_s=self.settings.api_timeout_s * DELIVERY_SHARE,
            linger_ms=0,
        )
        self._broker_watch.start()
        await asyncio.to_thread(self.view.refresh)
        self.view.start()

    async def stop(self) -> None:
        """Stop the threads, deliver the accepted messages, close the connections.

        The thread that checks the broker ends within BROKER_CHECK_S.
        """
        self._stopping.set()
        for end in self.end_streams:
            await end()
        await asyncio.to_thread(self.worker.close)
        await asyncio.to_thread(self.view.stop)
        if self._reader is not None:
            await self._reader.close()
            await self._arrivals.close()
            await self.entries.close()
            await self._shards.aclose()
        try:
            await asyncio.to_thread(self.producer.close)
        except LogUnavailable as error:
            _log.warning("producer_close_failed", error=str(error))

    async def user_state(
        self, user_id: str, after: str | None = None
    ) -> tuple[UserState | None, bool]:
        """The user's state after the write of token `after`, and whether it may lack that write.

        None when it cannot be read: the cause is in Health and the log. Raises ApiError for an
        invalid token.
        """
        stale = after is not None and await self._read_your_writes.stale(after)
        state = await self._user_state(user_id)
        return state, after is not None and (stale or state is None)

    async def _user_state(self, user_id: str) -> UserState | None:
        """None while the user's shard fails: only the live view tries it then, every REFRESH_S."""
        shard = shard_of_user(user_id, self.settings.redis_shards)
        if self.view.shard_health.fails(shard):
            return None
        assert self._reader is not None, "the app's lifespan has not begun"
        try:
            return await self._reader.read(user_id)
        except StoreCorrupt as error:
            _log.error("user_unreadable", user_id=user_id, error=str(error))
        except SlotMoving as error:  # the next read may find where the user is
            _log.debug("shard_moving", shard=shard, error=str(error))
        except StoreError as error:
            self.view.shard_health.mark_failed(shard, str(error))
        return None

    async def stale(self, after: str | None) -> bool:
        """Wait for the write of token `after`; whether an answer may lack it. Raises ApiError."""
        return after is not None and await self._read_your_writes.stale(after)

    async def arrived(self, token: str, seconds: float) -> bool:
        """Wait `seconds` at most; whether the state has the write of a token of `publish`.

        Raises StoreUnavailable, StoreCorrupt.
        """
        topic, partition, offset = token.split(":")
        return await self._arrivals.wait(topic, int(partition), int(offset), seconds)

    async def applied(self, topic: str, key: str) -> bool:
        """Wait until Redis has all that the log now holds of a key, API_AFTER_S at most.

        Raises LogUnavailable, StoreError.
        """
        if self.partitions.count(topic) is None:
            await asyncio.to_thread(self.partitions.refresh, self._confirm_s)
        ends = await asyncio.to_thread(self.partitions.ends, topic)
        if not ends:
            raise LogUnavailable(f"the topic {topic} is being created")
        partition = int(partitions_of([key.encode()], len(ends))[0])
        if not ends[partition]:
            return True
        seconds = self.settings.api_after_s
        return await self._arrivals.wait(topic, partition, ends[partition] - 1, seconds)

    async def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None = None
    ) -> str:
        """Publish one message and wait for its token.

        Raises LogUnavailable within the time of the request, and reports it to Health.
        """
        deadline.disable()
        try:
            async with asyncio.timeout(self._confirm_s):
                sent = self.producer.publish(
                    topic, key, value, [*(headers or ()), *(tracing.headers() or ())]
                )
                token = await asyncio.wrap_future(sent)
            self.health.mark_working("kafka")
            return token
        except TimeoutError:
            error = LogUnavailable(
                f"the broker has not confirmed it within {self._confirm_s:g} s; it may still arrive"
            )
        except LogUnavailable as failure:
            error = failure
        self.health.mark_failed("kafka", str(error))
        self._topics_exist = False
        raise error

    def _read_topic_ids(self) -> None:
        """Detect a topic that was deleted and created again.

        Without an answer the last known id stays: reads need it for `after` alone.
        """
        try:
            self._topic_ids.read()
        except LogUnavailable as error:
            _log.debug("topic_ids_unknown", error=str(error))

    def _watch_broker(self) -> None:
        """Check the broker every BROKER_CHECK_S; create the topics after the first answer and after
        every failure.
        """
        while True:
            try:
                self.producer.check(BROKER_CHECK_S)
                if not self._topics_exist:
                    # set before the check: a write that fails meanwhile resets it
                    self._topics_exist = True
                    self._topic_check.prepare(refuse=False)
                self.partitions.refresh(BROKER_CHECK_S)
                self.health.mark_working("kafka")
                self._read_topic_ids()
            except LogUnavailable as error:
                self._topics_exist = False
                self.health.mark_failed("kafka", str(error))
            if self._stopping.wait(BROKER_CHECK_S):
                return
