"""The writing half of ingest: one thread that applies batches in order while the other half reads
and plans the next ones.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from core.deletions import IdHasher
from core.errors import LogUnavailable, Stale
from core.settings import Settings
from store.log.model_updates import Hints
from store.log.producer import Headers, Producer
from store.state.apply.applier import Applier
from store.state.apply.batches import Batch
from store.state.apply.entries import EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from store.state.connection import Client
from streams import metrics
from streams.ingest.deletions.later_events import LaterEvents
from streams.ingest.deletions.recovery import Publisher

_DEPTH = 4
"""Transactions that wait: enough that Redis never waits for Python, few enough that a stop is
short.
"""

Partition = tuple[str, int]


class Outgoing(NamedTuple):
    """A message that must be in the log before the position may pass what caused it: a dead
    letter.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class Work(NamedTuple):
    """A batch, what must be published before it, and the generation of its partition: work of an
    older one is dropped.
    """

    batch: Batch | EntryBatch
    generation: int
    before: list[Outgoing]

    @property
    def partition(self) -> Partition:
        """Whose batch it is."""
        return self.batch.offsets.source


class Failure(NamedTuple):
    """A batch that was not applied, or nobody knows: the partition must be placed again by what
    Redis says.
    """

    partition: Partition
    generation: int
    error: BaseException


class Sender(threading.Thread):
    """Applies work in the order it is put, what is put together in one transaction.

    After a failure it drops what else it holds of the generation of the partitions that failed.
    """

    def __init__(self, client: Client, planner: Planner, settings: Settings) -> None:
        super().__init__(name="sender", daemon=True)
        self.applied: dict[Partition, int] = {}
        self.failures: queue.SimpleQueue[Failure] = queue.SimpleQueue()
        hasher = IdHasher(settings.deletion_salt)
        self._applier = Applier(client, planner, settings.history_cap, hasher)
        self._later = LaterEvents(settings)
        restoring = Planner(settings.use_cases, settings.experiments)
        publish = Publisher(settings, hasher).publish
        self._entries = EntryApplier(client, restoring, settings.history_cap, publish, self._later)
        self._settings = settings
        self._producer: Producer | None = None
        self._hints = Hints(settings, metrics.hints_lost.inc)
        self._queue: queue.Queue[Sequence[Work] | None] = queue.Queue(_DEPTH)
        self._failed: dict[Partition, int] = {}

    @property
    def deletions_version(self) -> str:
        """Version of the deletions, as of the latest transaction."""
        return self._applier.deletions_version

    def put(self, *works: Work) -> None:
        """Queue batches of as many partitions for one transaction; waits while the queue is
        full.
        """
        self._queue.put(works)

    def drain(self) -> None:
        """Wait until all queued work is applied, failed or dropped."""
        self._queue.join()

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._queue.put(None)
        self.join()
        self._applier.close()
        self._entries.close()
        self._later.close()

    def run(self) -> None:
        """The thread: apply, note, next."""
        while (works := self._next()) is not None:
            self._apply(
                [work for work in works if work.generation > self._failed.get(work.partition, -1)]
            )
            self._queue.task_done()
        self._hints.close()
        if self._producer is not None:
            # _publish has raised for each message that was not delivered
            with suppress(LogUnavailable):
                self._producer.close()
        self._queue.task_done()

    def _apply(self, works: Sequence[Work]) -> None:
        if not works:
            return
        try:
            if before := [message for work in works for message in work.before]:
                self._publish(before)
            self._write([work.batch for work in works])
            for work in works:
                self.applied[work.partition] = work.batch.offsets.next
                self._tell(work.batch)
        except Stale as stale:
            if len(works) == 1:
                self._fail(works, stale)
                return
            for work in works:  # none is applied, and all but the stale ones can be
                self._apply([work._replace(before=[])])
        except Exception as error:  # noqa: BLE001  the loop that owns the partition raises what it cannot mend
            self._fail(works, error)

    def _write(self, batches: Sequence[Batch | EntryBatch]) -> None:
        """Batches of interactions go together, one of entries goes alone."""
        for batch in batches:
            if isinstance(batch, EntryBatch):
                applied = self._entries.apply(batch)
                metrics.deletions.inc(applied.deletions)
                metrics.dead_records.inc(applied.dead)
        if interactions := [batch for batch in batches if isinstance(batch, Batch)]:
            self._applier.apply(*interactions)

    def _fail(self, works: Sequence[Work], error: BaseException) -> None:
        for work in works:
            self._failed[work.partition] = work.generation
            self.failures.put(Failure(work.partition, work.generation, error))

    def _next(self) -> Sequence[Work] | None:
        while True:
            try:
                return self._queue.get(timeout=self._hints.due_in())
            except queue.Empty:
                self._hints.flush()

    def _tell(self, batch: Batch | EntryBatch) -> None:
        """Say that a batch is applied: the oldest of its events tells how late, the hints tell the
        live workers whom it changed.
        """
        if batch.events:
            metrics.applied_seconds.observe(max(0.0, time.time() - batch.events[0].broker_time))
            self._hints.add(batch.offsets.partition, batch.events)

    def _publish(self, messages: list[Outgoing]) -> None:
        if self._producer is None:
            self._producer = Producer(
                self._settings, delivery_timeout_s=self._settings.kafka_timeout_s
            )
        for message in messages:
            self._producer.raw(message.topic, message.key, message.value, headers=message.headers)
        self._producer.flush()
