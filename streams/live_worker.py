"""One live worker, apart from Kafka: takes batches of hints, and gets them into Redis whatever happens to it.

What takes time runs in one thread of the worker's own, so that the event loop goes on telling the group that this worker lives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import structlog

from core.errors import BadEvent, LogUnavailable, StoreUnavailable
from core.settings import Settings
from store import connection, dead_letters, log, model_updates
from store.live import LiveStore
from store.model_updates import Pair
from streams import metrics
from streams.live_fold import Folder
from streams.live_model import LiveModel

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")

RETRY_S = (0.1, 0.5, 2.0)
"""Seconds before a failed batch is tried again; after the last try its messages are tried one by one."""
AWAY_S = 0.5
"""Seconds between tries while Redis is away."""


class Hint(Protocol):
    """A message of the topic MODEL_UPDATES, as Faust hands it on. `timestamp` is the broker's, in seconds."""

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
        self._store = LiveStore(connection.connect(settings), settings.history_cap, settings.young_item_users)
        self._folder = Folder(settings, self._store)
        self._thread = ThreadPoolExecutor(1, "fold-in")
        self._looked = asyncio.Event()
        self._producer: log.Producer | None = None

    async def follow(self) -> None:
        """Look for another bundle. Loading one goes on beside the folding."""
        await asyncio.to_thread(self.model.refresh)
        self._looked.set()

    async def take(self, hints: Sequence[Hint]) -> None:
        """Fold one batch in. What cannot be becomes a dead letter; while Redis is away this waits."""
        await self._looked.wait()
        read: list[tuple[Hint, list[Pair]]] = []
        for hint in hints:
            try:
                read.append((hint, model_updates.decode(hint.value)))
            except BadEvent as bad:
                await self._give_up(hint, bad)
        started = time.perf_counter()
        if read and await self._tried([pair for _, pairs in read for pair in pairs], RETRY_S) is not None:
            for hint, pairs in read:
                error = await self._tried(pairs, ())
                if error is not None:
                    await self._give_up(hint, BadEvent("not_folded_in", f"{type(error).__name__}: {error}"))
        metrics.live_batches.inc()
        metrics.live_batch_seconds.observe(time.perf_counter() - started)
        metrics.live_lag_seconds.set(max(0.0, time.time() - hints[-1].timestamp))

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
                return None
            except StoreUnavailable as error:
                _log.warning("waiting for Redis; readers fold in meanwhile", error=str(error))
                metrics.live_retries.labels("StoreUnavailable").inc()
                await asyncio.sleep(AWAY_S)
            except Exception as error:  # noqa: BLE001  whatever a batch does, the worker goes on
                metrics.live_retries.labels(type(error).__name__).inc()
                if tries == len(waits):
                    return error
                _log.warning("a batch failed and is tried again", events=len(pairs), error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(waits[tries])
                tries += 1

    def _fold(self, pairs: list[Pair]) -> None:
        space = self.model.space
        if space is not None:  # without a model the readers have none either
            self._folder.fold(space, pairs)

    async def _give_up(self, hint: Hint, bad: BadEvent) -> None:
        """A dead letter: nothing is lost by it but a fold-in, and somebody should look."""
        _log.warning("dead letter", topic=hint.topic, partition=hint.partition, offset=hint.offset, code=bad.code, reason=str(bad))
        metrics.live_dead_letters.labels(bad.code).inc()
        record = dead_letters.encode(hint.topic, hint.partition, hint.offset, hint.timestamp, hint.key, hint.value, bad)
        try:
            await asyncio.to_thread(self._publish, record)
        except LogUnavailable as error:
            _log.error("dead letter not written", error=str(error))

    def _publish(self, record: dead_letters.Record) -> None:
        if self._producer is None:
            self._producer = log.Producer(self.settings, delivery_timeout_s=self.settings.kafka_timeout_s)
        self._producer.raw(self.settings.dlq_topic, record.key, record.value, headers=record.headers)
        self._producer.flush()

    async def _apart(self, call: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
