"""Applies batches to Redis in a thread of its own (steps 4 and 5 of `streams.ingest.loop`), while
the consumer's thread reads and plans the next ones.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from core.deletions import IdHasher
from core.errors import LogUnavailable, Stale
from core.process import tracing
from core.settings import Settings
from store.log.dead_letters import Record
from store.log.model_updates import Hints
from store.log.producer import Producer
from store.state import keys
from store.state.apply.applier import Applier
from store.state.apply.batches import Batch
from store.state.apply.entries import EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from store.state.connection import Client
from store.state.shards import Shards, shard_of_partition
from streams import metrics
from streams.ingest.deletions.later_events import LaterEvents
from streams.ingest.deletions.publisher import Publisher
from streams.ingest.partition import Partition, State

_DEPTH = 4
"""Transactions in the queue: enough that Redis never waits for Python, few enough that a stop is
short.
"""


if TYPE_CHECKING:
    from streams.ingest.traces import Traces


def _traces() -> Traces | None:
    """The spans of messages; None while tracing is off, and OpenTelemetry is not imported then."""
    if not tracing.is_on():
        return None
    from streams.ingest.traces import Traces

    return Traces()


class Task(NamedTuple):
    """A batch of a partition, and the dead letters that must be acknowledged before the position
    may pass them.
    """

    partition: Partition
    batch: Batch | EntryBatch
    dead_letters: list[Record]


class _Appliers:
    """What applies the batches of one shard. `first`: the client of shard 0."""

    def __init__(self, client: Client, first: Client, planner: Planner, settings: Settings) -> None:
        names, hasher = keys.of(client), IdHasher(settings.deletion_salt)
        self.events = Applier(client, planner, settings.history_cap, hasher)
        self._later = LaterEvents(settings, names.shard)
        restoring = Planner(settings.use_cases, settings.experiments, names.shards)
        publish = Publisher(settings, hasher, names.shard).publish
        self.entries = EntryApplier(
            client, restoring, settings.history_cap, publish, self._later, first
        )

    def close(self) -> None:
        """Drop the connections."""
        self.events.close()
        self.entries.close()
        self._later.close()


class ApplyThread(threading.Thread):
    """Applies tasks in the order in which they are put, those that are put together in one
    transaction.

    A task that is not applied, or of which that is unknown, fails its partition. The tasks of a
    failed partition that are queued by then are dropped.
    """

    def __init__(self, shards: Shards, planner: Planner, settings: Settings) -> None:
        super().__init__(name="apply", daemon=True)
        self._appliers = [_Appliers(client, shards.first, planner, settings) for client in shards]
        self._settings = settings
        self._producer: Producer | None = None
        self._hints = Hints(settings, metrics.hints_lost.inc)
        self.traces = _traces()
        self._queue: queue.Queue[Sequence[Task] | None] = queue.Queue(_DEPTH)

    def shard(self, partition: Partition) -> int:
        """The shard of a partition: only batches of one shard are applied in one transaction."""
        return shard_of_partition(self._settings, partition.topic, partition.number)

    def deletions_version(self, partition: Partition) -> str:
        """Version of the deletions in the partition's shard, as of its latest transaction."""
        return self._appliers[self.shard(partition)].events.deletions_version

    def put(self, *tasks: Task) -> None:
        """Queue batches of as many partitions of one shard for one transaction; waits while the
        queue is full.
        """
        self._queue.put(tasks)

    def drain(self) -> None:
        """Wait until each queued task is applied, failed or dropped."""
        self._queue.join()

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._queue.put(None)
        self.join()
        for appliers in self._appliers:
            appliers.close()

    def run(self) -> None:
        """The thread: take tasks from the queue and apply them."""
        while (tasks := self._next()) is not None:
            self._apply([task for task in tasks if task.partition.state is not State.FAILED])
            self._queue.task_done()
        self._hints.close()
        if self._producer is not None:
            # _publish has raised for each message that was not delivered
            with suppress(LogUnavailable):
                self._producer.close()
        self._queue.task_done()

    def _apply(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        try:
            if letters := [letter for task in tasks for letter in task.dead_letters]:
                self._publish(letters)
            self._write(tasks)
            for task in tasks:
                task.partition.applied_up_to(task.batch.offsets.next)
                self._send_hints(task.batch)
                if self.traces is not None:
                    self.traces.end(task.batch.offsets, len(task.batch.events))
        except Stale as stale:
            if len(tasks) == 1:
                tasks[0].partition.fail(stale)
                return
            for task in tasks:  # none is applied, and all but the stale ones can be
                self._apply([task._replace(dead_letters=[])])
        except Exception as error:  # noqa: BLE001  the consumer's thread raises what no retry repairs
            for task in tasks:
                task.partition.fail(error)

    def _write(self, tasks: Sequence[Task]) -> None:
        """Apply batches of interactions in one transaction, a batch of entries in its own."""
        appliers = self._appliers[self.shard(tasks[0].partition)]
        for batch in (task.batch for task in tasks):
            if isinstance(batch, EntryBatch):
                applied = appliers.entries.apply(batch)
                metrics.deletions.inc(applied.deletions)
                metrics.dead_records.inc(applied.dead)
        if interactions := [task.batch for task in tasks if isinstance(task.batch, Batch)]:
            appliers.events.apply(*interactions)

    def _next(self) -> Sequence[Task] | None:
        while True:
            try:
                return self._queue.get(timeout=self._hints.due_in())
            except queue.Empty:
                self._hints.flush()

    def _send_hints(self, batch: Batch | EntryBatch) -> None:
        """Tell the live workers which users and items an applied batch changed, and measure how
        late its oldest event is.
        """
        if batch.events:
            metrics.applied_seconds.observe(max(0.0, time.time() - batch.events[0].broker_time))
            self._hints.add(batch.offsets.partition, batch.events)

    def _publish(self, letters: list[Record]) -> None:
        """Publish dead letters and wait until they are acknowledged. Raises LogUnavailable."""
        if self._producer is None:
            self._producer = Producer(
                self._settings, delivery_timeout_s=self._settings.kafka_timeout_s
            )
        topic = self._settings.dlq_topic
        for letter in letters:
            self._producer.raw(topic, letter.key, letter.value, headers=letter.headers)
        self._producer.flush()
