"""Processes the hints of one live worker, without Faust: decode, fold in, retry, dead letters.

Blocking work runs in one thread of the worker's own, so that the event loop can send heartbeats to
the consumer group meanwhile.
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
from store.state.live_shards import LiveShards
from store.state.shards import Shards
from streams import metrics
from streams.live.fold import UserFolder
from streams.live.model import LiveModel
from streams.live.new_items import NewItemFolder
from streams.live.share import WorkShare

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")

RETRY_S = (0.1, 0.5, 2.0)
"""Seconds before each retry of a failed batch; after the last one its messages are tried one by
one.
"""
AWAY_S = 0.5
"""Seconds between tries while Redis does not answer."""
READERS_S = 1.0
"""Seconds between two looks at who is read; notes of the look before are looked at again, because
the clocks of processes differ.
"""


class _Totals(NamedTuple):
    """What the worker has done until `at` (time.monotonic())."""

    at: float
    batches: int
    events: int
    users: int
    items: int


class Hint(Protocol):
    """A message of the topic MODEL_UPDATES, as Faust delivers it.

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
        self._clients = Shards(settings)
        self._shards = LiveShards(self._clients, settings.history_cap, settings.young_item_users)
        self._users = UserFolder(settings, self._shards)
        self._new_items = NewItemFolder(settings, self._clients, self._shards, self._users)
        self._thread = ThreadPoolExecutor(1, "fold-in")
        self._refreshed = asyncio.Event()
        self._producer: Producer | None = None
        self._reported = _Totals(time.monotonic(), 0, 0, 0, 0)
        self._batches = self._events = 0
        self._share, self._rest_s = WorkShare(settings.live_cpu_share), 0.0
        self.lag_s = 0.0
        """Age of the latest hint at the end of its batch."""
        self.next_offsets: dict[int, int] = {}
        """Partition -> the offset after the last processed one."""

    async def follow(self) -> bool:
        """Load the live bundle if it is another one; returns whether it was loaded.

        Meanwhile hints are processed with the previous one.
        """
        swapped = await asyncio.to_thread(self.model.refresh)
        self._refreshed.set()
        return swapped

    async def process(self, hints: Sequence[Hint]) -> None:
        """Fold in one batch of hints; blocks while Redis is away.

        A hint that cannot be decoded or folded in becomes a dead letter.
        """
        await self._refreshed.wait()
        decoded: list[tuple[Hint, list[Pair]]] = []
        for hint in hints:
            try:
                decoded.append((hint, model_updates.decode(hint.value)))
            except BadEvent as error:
                await self._write_dead_letter(hint, error)
        started = time.perf_counter()
        all_pairs = [pair for _, pairs in decoded for pair in pairs]
        if decoded and await self._fold_with_retries(all_pairs, RETRY_S) is not None:
            for hint, pairs in decoded:
                failure = await self._fold_with_retries(pairs, ())
                if failure is not None:
                    reason = f"{type(failure).__name__}: {failure}"
                    await self._write_dead_letter(hint, BadEvent("not_folded_in", reason))
        self._batches += 1
        self._events += len(all_pairs)
        self.next_offsets.update({hint.partition: hint.offset + 1 for hint in hints})
        metrics.live_batches.inc()
        busy_s = time.perf_counter() - started
        metrics.live_batch_seconds.observe(busy_s)
        self._rest_s = self._share.rest_s(busy_s)
        self.lag_s = max(0.0, time.time() - hints[-1].timestamp)
        metrics.live_lag_seconds.set(self.lag_s)

    async def rest(self) -> None:
        """Rest after a batch, so that the batches take LIVE_CPU_SHARE of the time."""
        await asyncio.sleep(self._rest_s)

    async def fold_readers(self) -> None:
        """Fold in the users who are read now and have no fresh vector: their next read has one.

        Only one worker of the group does this.
        """
        space, since = self.model.space, time.time() - 2 * READERS_S
        if space is not None and self.settings.live_read_s:
            await self._succeeds(
                "fold in who is read",
                lambda: self._users.fold_readers(space, since, self._share.until()),
            )

    async def refold_new_items(self) -> None:
        """Compute the factors of the changed new items that are due."""
        space = self.model.space
        while space is not None and self._new_items.has_due():
            if not await self._succeeds(
                "refold new items", functools.partial(self._new_items.refold, space)
            ):
                return

    async def maintain_new_items(self) -> None:
        """Check all new items; only one worker of the group does this."""
        space = self.model.space
        if space is None:
            return
        chunks: list[list[str]] = []
        complete = await self._succeeds(
            "list new items", lambda: chunks.extend(self._new_items.chunks_to_check(space))
        )
        for chunk in chunks:
            complete = complete and await self._succeeds(
                "check new items", functools.partial(self._new_items.check, space, chunk)
            )
        if not complete:
            self._new_items.restart_deletions()

    def report(self) -> None:
        """Log the rates since the last report, unless nothing was done."""
        now = _Totals(
            time.monotonic(),
            self._batches,
            self._events,
            self._users.folded,
            self._new_items.folded,
        )
        before, self._reported = self._reported, now
        if now[1:] == before[1:]:
            return
        seconds, users = now.at - before.at, now.users - before.users
        _log.info(
            "fold_in_progress",
            users_per_s=round(users / seconds),
            events_per_s=round((now.events - before.events) / seconds),
            new_items_per_s=round((now.items - before.items) / seconds, 1),
            users_per_batch=round(users / max(1, now.batches - before.batches)),
            lag_s=round(self.lag_s, 2),
        )

    async def close(self) -> None:
        """Wait for the running work, and close the connections."""
        await asyncio.to_thread(self._thread.shutdown)
        self._shards.close()
        self._clients.close()
        if self._producer is not None:
            await asyncio.to_thread(self._producer.close, 1.0)

    async def _fold_with_retries(
        self, pairs: list[Pair], waits: Sequence[float]
    ) -> Exception | None:
        """Fold in, with one retry after each of `waits` seconds; returns the error of the last try.

        Does not count tries while Redis is away.
        """
        tries = 0
        while True:
            try:
                await self._in_thread(lambda: self._fold(pairs))
                outage.REDIS.end()
                return None
            except StoreUnavailable as error:
                outage.REDIS.begin(str(error), "folding in; until it is back, readers fold in")
                metrics.live_retries.labels("StoreUnavailable").inc()
                await asyncio.sleep(AWAY_S)
            except Exception as error:  # noqa: BLE001 - no batch may end the worker
                metrics.live_retries.labels(type(error).__name__).inc()
                if tries == len(waits):
                    return error
                _log.warning(
                    "fold_in_failed",
                    events=len(pairs),
                    error=f"{type(error).__name__}: {error}",
                    retry_in_s=waits[tries],
                )
                await asyncio.sleep(waits[tries])
                tries += 1

    def _fold(self, pairs: list[Pair]) -> None:
        space = self.model.space
        if space is not None:  # without a model the readers have none either
            self._new_items.mark_changed(self._users.fold(space, pairs, self._share.until()))

    async def _write_dead_letter(self, hint: Hint, error: BadEvent) -> None:
        """Keep the hint for an operator. Its users lose no data: readers fold them in."""
        _log.warning(
            "dead_letter",
            topic=hint.topic,
            partition=hint.partition,
            offset=hint.offset,
            code=error.code,
            reason=str(error),
        )
        metrics.live_dead_letters.labels(error.code).inc()
        message = LogMessage(
            hint.topic, hint.partition, hint.offset, hint.timestamp, hint.key, hint.value
        )
        record = dead_letters.encode(message, error)
        try:
            await asyncio.to_thread(self._publish, record)
        except LogUnavailable as failure:
            _log.error("dead_letter_lost", error=str(failure))

    def _publish(self, record: dead_letters.Record) -> None:
        if self._producer is None:
            self._producer = Producer(
                self.settings, delivery_timeout_s=self.settings.kafka_timeout_s
            )
        self._producer.raw(
            self.settings.dlq_topic, record.key, record.value, headers=record.headers
        )
        self._producer.flush()

    async def _succeeds(self, task: str, call: Callable[[], None]) -> bool:
        """Call it in the thread; False if it failed. A later round then repeats the work."""
        try:
            await self._in_thread(call)
        except StoreUnavailable as error:
            metrics.live_retries.labels("StoreUnavailable").inc()
            outage.REDIS.begin(str(error), task)
            return False
        except Exception as error:  # noqa: BLE001 - an error here would end the worker
            metrics.live_retries.labels(type(error).__name__).inc()
            _log.warning("task_failed", task=task, error=f"{type(error).__name__}: {error}")
            return False
        return True

    async def _in_thread(self, call: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
