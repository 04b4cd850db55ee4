"""One live worker, apart from Kafka: takes batches of hints, and gets them into Redis whatever
happens to it.

What takes time runs in one thread of the worker's own, so that the event loop goes on telling the
group that this worker lives.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import structlog

from core.errors import BadEvent, LogUnavailable, StoreUnavailable
from core.settings import Settings
from store import outage
from store.log import dead_letters, model_updates
from store.log.message import LogMessage
from store.log.model_updates import Pair
from store.log.producer import Producer
from store.state import connection
from store.state.entities.vectors import LiveStore
from streams import metrics
from streams.live.fold import Folder
from streams.live.model import LiveModel
from streams.live.new_items import NewItemFolder

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")

RETRY_S = (0.1, 0.5, 2.0)
"""Seconds before a failed batch is tried again; after the last try its messages are tried one by
one.
"""
AWAY_S = 0.5
"""Seconds between tries while Redis is away."""


class _Tally(NamedTuple):
    at: float
    batches: int
    events: int
    users: int
    items: int


class Hint(Protocol):
    """A message of the topic MODEL_UPDATES, as Faust hands it on.

    `timestamp` is the broker's, in seconds.
    """

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None


class LiveWorker:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = LiveModel(settings)
        client = connection.connect(settings)
        self._store = LiveStore(client, settings.history_cap, settings.young_item_users)
        self._folder = Folder(settings, self._store)
        self._new_items = NewItemFolder(settings, client, self._store, self._folder)
        self._thread = ThreadPoolExecutor(1, "fold-in")
        self._looked = asyncio.Event()
        self._producer: Producer | None = None
        self._reported = _Tally(time.monotonic(), 0, 0, 0, 0)
        self._batches = self._events = 0
        self.lag_s = 0.0
        """Age of the latest hint when its batch was done."""
        self.taken: dict[int, int] = {}
        """Partition -> the offset after the last one taken."""

    async def follow(self) -> bool:
        """Look for another bundle; answers whether one went live.

        Loading it goes on beside the folding.
        """
        swapped = await asyncio.to_thread(self.model.refresh)
        self._looked.set()
        return swapped

    async def take(self, hints: Sequence[Hint]) -> None:
        """Fold one batch in.

        What cannot be becomes a dead letter; while Redis is away this waits.
        """
        await self._looked.wait()
        read: list[tuple[Hint, list[Pair]]] = []
        for hint in hints:
            try:
                read.append((hint, model_updates.decode(hint.value)))
            except BadEvent as bad:
                await self._give_up(hint, bad)
        started = time.perf_counter()
        if (
            read
            and await self._tried([pair for _, pairs in read for pair in pairs], RETRY_S)
            is not None
        ):
            for hint, pairs in read:
                error = await self._tried(pairs, ())
                if error is not None:
                    await self._give_up(
                        hint, BadEvent("not_folded_in", f"{type(error).__name__}: {error}")
                    )
        self._batches += 1
        self._events += sum(len(pairs) for _, pairs in read)
        self.taken.update({hint.partition: hint.offset + 1 for hint in hints})
        metrics.live_batches.inc()
        metrics.live_batch_seconds.observe(time.perf_counter() - started)
        self.lag_s = max(0.0, time.time() - hints[-1].timestamp)
        metrics.live_lag_seconds.set(self.lag_s)

    async def refold(self) -> None:
        """Refold new items whose lists have changed, as far as their time has come."""
        space = self.model.space
        while space is not None and self._new_items.due():
            if not await self._survived(
                "refolding new items", functools.partial(self._new_items.refold, space)
            ):
                return

    async def tend(self) -> None:
        """Look after all new items; one worker of the group does."""
        space = self.model.space
        if space is None:
            return
        chunks: list[list[str]] = []
        whole = await self._survived(
            "looking for new items", lambda: chunks.extend(self._new_items.overdue(space))
        )
        for chunk in chunks:
            whole = whole and await self._survived(
                "looking after new items", functools.partial(self._new_items.tend, space, chunk)
            )
        if not whole:
            self._new_items.distrust()

    def report(self) -> None:
        """One line of progress, when there was some."""
        now = _Tally(
            time.monotonic(),
            self._batches,
            self._events,
            self._folder.folded,
            self._new_items.folded,
        )
        then, self._reported = self._reported, now
        if now[1:] != then[1:]:
            seconds = now.at - then.at
            _log.info(
                "folding in",
                users_per_s=round((now.users - then.users) / seconds),
                events_per_s=round((now.events - then.events) / seconds),
                new_items_per_s=round((now.items - then.items) / seconds, 1),
                users_per_batch=round(
                    (now.users - then.users) / max(1, now.batches - then.batches)
                ),
                lag_s=round(self.lag_s, 2),
            )

    async def close(self) -> None:
        """Let what is under way end, and let go of the connections."""
        await asyncio.to_thread(self._thread.shutdown)
        self._store.close()
        if self._producer is not None:
            await asyncio.to_thread(self._producer.close, 1.0)

    async def _tried(self, pairs: list[Pair], waits: Sequence[float]) -> Exception | None:
        """Fold in, again after each of `waits`; the last error, if it never went well."""
        tries = 0
        while True:
            try:
                await self._apart(lambda: self._fold(pairs))
                outage.REDIS.end()
                return None
            except StoreUnavailable as error:
                outage.REDIS.begin(str(error), "folding in; readers do it meanwhile")
                metrics.live_retries.labels("StoreUnavailable").inc()
                await asyncio.sleep(AWAY_S)
            except Exception as error:  # noqa: BLE001  whatever a batch does, the worker goes on
                metrics.live_retries.labels(type(error).__name__).inc()
                if tries == len(waits):
                    return error
                _log.warning(
                    "a batch failed and is tried again",
                    events=len(pairs),
                    error=f"{type(error).__name__}: {error}",
                )
                await asyncio.sleep(waits[tries])
                tries += 1

    def _fold(self, pairs: list[Pair]) -> None:
        space = self.model.space
        if space is not None:  # without a model the readers have none either
            self._new_items.note(self._folder.fold(space, pairs))

    async def _give_up(self, hint: Hint, bad: BadEvent) -> None:
        """A dead letter: nothing is lost by it but a fold-in, and somebody should look."""
        _log.warning(
            "dead letter",
            topic=hint.topic,
            partition=hint.partition,
            offset=hint.offset,
            code=bad.code,
            reason=str(bad),
        )
        metrics.live_dead_letters.labels(bad.code).inc()
        record = dead_letters.encode(
            LogMessage(
                hint.topic, hint.partition, hint.offset, hint.timestamp, hint.key, hint.value
            ),
            bad,
        )
        try:
            await asyncio.to_thread(self._publish, record)
        except LogUnavailable as error:
            _log.error("dead letter not written", error=str(error))

    def _publish(self, record: dead_letters.Record) -> None:
        if self._producer is None:
            self._producer = Producer(
                self.settings, delivery_timeout_s=self.settings.kafka_timeout_s
            )
        self._producer.raw(
            self.settings.dlq_topic, record.key, record.value, headers=record.headers
        )
        self._producer.flush()

    async def _survived(self, what: str, call: Callable[[], None]) -> bool:
        """Do it; False when it failed. What is still to do then is found again later."""
        try:
            await self._apart(call)
        except StoreUnavailable as error:
            metrics.live_retries.labels("StoreUnavailable").inc()
            outage.REDIS.begin(str(error), what)
            return False
        except Exception as error:  # noqa: BLE001  raised any further, it would end the worker
            metrics.live_retries.labels(type(error).__name__).inc()
            _log.warning(
                "failed, and tried again later", what=what, error=f"{type(error).__name__}: {error}"
            )
            return False
        return True

    async def _apart(self, call: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
