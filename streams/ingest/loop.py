"""Applies the messages of Kafka to Redis exactly once: `streams ingest`.

One partition's way through this process, numbered; the crash tests use these numbers:

1. Place (`placement`): read the partition's position from Redis, compare it and the topic's id with
   the log, and start `dedup_window` before the first event that Redis lacks.
2. Replay (`messages`): below the position, events only fill the duplicate window and the popularity
   that is not written yet.
3. Plan (`messages`, `batcher`): from the position on, decode. A message that is no valid event
   becomes a dead letter, a duplicate counts nowhere, the rest makes batches.
4. Publish the dead letters, and wait until they are acknowledged (`apply_thread`).
5. Apply the batch together with the new position (`apply_thread`; `store.state.apply.applier` has
   the steps inside).
6. Commit the position to Kafka, for lag dashboards only.

`partition` draws the states of a partition. Whenever this process and Redis disagree, or the result
of a batch is unknown (a lost connection, a position moved by another process, a server set back),
the partition fails and is placed again. So there is one way to start, to recover and to take over.
A partition also fails when the log may be another one: the topic's id changed, an offset went back,
or the broker no longer has the offset that comes next.

The client delivers only committed records (its default isolation level). Control records and
aborted ones leave holes, which it reports as the partition's end at an offset beyond the last
record; the position moves there too.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.errors import LogRewound, LogUnavailable, Stale, StoreUnavailable
from core.process import cli, stop, tracing
from core.settings import Settings
from store import outage, start
from store.log import client as log
from store.log import ends as log_ends
from store.log.access import permissions
from store.log.topics.check import TopicCheck
from store.state.apply import positions
from store.state.apply.planner import Planner
from store.state.running import Running
from store.state.shards import Shards
from streams import metrics
from streams.ingest import readiness
from streams.ingest.apply_thread import ApplyThread
from streams.ingest.assignment import Assignment
from streams.ingest.batcher import Batcher
from streams.ingest.foreign_partitions import ForeignPartitions
from streams.ingest.messages import Message
from streams.ingest.partition import Partition, State
from streams.ingest.partition_watch import IngestWatch
from streams.ingest.polling import GATHER_S, Poll, Poller
from streams.retry import Retry

_log = structlog.get_logger(__name__)

_COMMIT_S = 5.0
"""Seconds between commits of the positions to Kafka (how late a lag dashboard is), and between
checks whether Redis was set back.
"""
_LAG_S = 1.0
"""Seconds between measurements of the lag."""
_IDLE_S = 0.2
"""Seconds that a poll waits for the first event; bounds how late a stop or a failure is noticed."""
_FETCH_WAIT_MS = 50
"""Milliseconds that a broker may wait for an event before it answers; by default 500. Apache Kafka
answers at the first event, the embedded broker much later. The price: while no events come, a
broker answers 20 requests a second of each ingest process.
"""
_OFFSET_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
"""The broker has no record at the offset that comes next: the log was trimmed, cut, or is another
one.
"""
_SWITCH_S = 0.0002
"""Seconds after which the consumer's thread hands the interpreter to the apply thread; by default 5
ms, for which Redis would wait.
"""
_GC_OBJECTS = 50_000
"""New objects after which Python looks for cycles; by default 700, which a poll of 4,000 messages
passes several times. They are all in use then and in no cycle: to visit them took a seventh of the
processor time of ingest.
"""


class Ingest:
    """The consumer loop.

    `run` returns after `stop` was called, from any thread or signal handler.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shards = Shards(settings)
        self._stopped = threading.Event()
        self._topics = [settings.interactions_topic, settings.items_topic, settings.users_topic]
        self._topic_check = TopicCheck(settings, permissions.of_ingest)
        self._running = Running(self._shards.first)
        planner = Planner(settings.use_cases, settings.experiments, settings.redis_shards)
        self._apply_thread = ApplyThread(Shards(settings), planner, settings)
        self._watch = IngestWatch(settings, self._topics)
        self._foreign = ForeignPartitions(self._shards, settings.interactions_topic, self._watch)
        self._batcher = Batcher(settings, planner, self._apply_thread, self._foreign)
        self._assignment = Assignment(settings, self._shards, planner, Retry(self._stopped))

    def stop(self) -> None:
        """Finish what is under way and return from `run`."""
        self._stopped.set()

    def run(self) -> None:
        """Consume until stopped.

        Raises what no retry repairs: LogGap, LogRewound, StoreCorrupt, StoreMisconfigured,
        ConfigurationError.
        """
        settings = self._settings
        if not start.until_ready(
            settings,
            self._stopped,
            lambda: readiness.prepare(settings, self._shards, self._topic_check, self._running),
        ):
            return
        self._apply_thread.start()
        self._watch.start()
        consumer = Consumer(
            {"fetch.wait.max.ms": _FETCH_WAIT_MS}  # KAFKA_EXTRA overrules it
            | log.consumer_config(settings, settings.ingest_group)
            | {"enable.partition.eof": True}
        )
        consumer.subscribe(
            self._topics,
            on_assign=self._assignment.assign,
            on_revoke=self._on_revoke,
            on_lost=lambda _consumer, partitions: self._assignment.remove(partitions),
        )
        _log.info("ingest_started", group=settings.ingest_group, topics=self._topics)
        try:
            self._consume(consumer)
        finally:
            self._watch.close()
            self._apply_thread.close()
            self._commit(consumer)
            applied = {str(partition): partition.applied for partition in self._assignment}
            consumer.close()
            with contextlib.suppress(StoreUnavailable):  # the entry expires by itself
                self._running.end()
            _log.info("ingest_stopped", positions=dict(sorted(applied.items())))

    def _consume(self, consumer: Consumer) -> None:
        poller = Poller(consumer, self._settings.poll_events)
        committed = measured = time.monotonic()
        wait_s = _IDLE_S
        while not self._stopped.is_set():
            self._assignment.check_topics()
            self._assignment.place_failed(consumer)
            read = self._read(poller.poll(wait_s))
            is_more_due = self._batcher.flush_popularity(self._assignment, besides=read)
            wait_s = GATHER_S if is_more_due else _IDLE_S
            self._batcher.send()
            self._foreign.check()
            now = time.monotonic()
            if now - measured > _LAG_S:
                measured = now
                self._measure_lag(consumer)
            if now - committed > _COMMIT_S:
                committed = now
                self._commit(consumer)
                self._check_redis()

    def _read(self, poll: Poll) -> set[Partition]:
        """Make batches of messages; answers the partitions that they are of.

        Users come first: an event that came with the deletion of its user is then most often not
        counted and taken back.
        """
        read: set[Partition] = set()
        users_topic = self._settings.users_topic
        for key in sorted(poll.messages, key=lambda key: key[0] != users_topic):
            partition, messages = self._assignment.get(*key), poll.messages[key]
            if partition is None or partition.state is State.FAILED:
                continue  # revoked between the fetch and now, or read again from Redis' position
            read.add(partition)
            first = messages[0].offset()
            if first < partition.read:
                partition.fail(
                    LogRewound(
                        f"{partition}: offset {first} came after offset {partition.read - 1}"
                    )
                )
            else:
                self._batcher.add(partition, messages)
        for message in poll.errors:
            self._handle_error(message)
        return read

    def _handle_error(self, message: Message) -> None:
        """Handle a partition's end, which may lie beyond its last record, and the client's errors.

        Raises LogUnavailable.
        """
        error = message.error()
        assert error is not None
        partition = self._assignment.get(message.topic(), message.partition())
        if error.code() == KafkaError._PARTITION_EOF:
            if partition is not None and message.offset() > partition.read:
                self._batcher.skip_to(partition, message.offset())
        elif partition is not None and error.code() in _OFFSET_GONE:
            partition.fail(
                LogUnavailable(f"the broker does not have the next offset: {error.str()}")
            )
        elif error.fatal():
            raise LogUnavailable(f"the Kafka client gave up: {error.str()}")
        else:
            _log.warning("kafka_client_error", code=error.name(), error=error.str())

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._apply_thread.drain()  # so that the next owner starts where this process ends
        self._commit(consumer)
        self._assignment.remove(partitions)

    def _check_redis(self) -> None:
        """Fail the partitions whose position in Redis went back: it was emptied or set back while
        no event came. Announce this process again, too.
        """
        # read before Redis is: the position in Redis is this one or a later one
        applied = {partition: partition.applied for partition in self._assignment}
        try:
            self._running.renew()
            stored = {
                partition: positions.read(
                    self._shards.of_partition(partition.topic, partition.number),
                    partition.topic,
                    partition.number,
                ).offset
                for partition in applied
            }
        except StoreUnavailable as error:
            outage.REDIS.begin(str(error), "checking positions")
            return
        outage.REDIS.end()
        for partition, position in stored.items():
            if position < applied[partition]:
                reason = f"{partition} was applied up to {applied[partition]}, but Redis stands at"
                partition.fail(Stale(position, f"{reason} {position}"))

    # Step 6

    def _commit(self, consumer: Consumer) -> None:
        offsets = [
            TopicPartition(partition.topic, partition.number, partition.applied)
            for partition in self._assignment
        ]
        if offsets:
            try:
                consumer.commit(offsets=offsets, asynchronous=True)
            # costs a dashboard some seconds; the position that counts is in Redis
            except KafkaException as error:
                _log.debug("offset_commit_failed", error=str(error))

    def _measure_lag(self, consumer: Consumer) -> None:
        for partition in self._assignment:
            topic, number, applied = partition.topic, partition.number, partition.applied
            end = log_ends.known_end(consumer, topic, number)
            if end is not None:
                if end < applied:
                    partition.fail(
                        LogRewound(f"{partition} ends at {end}, but was applied up to {applied}")
                    )
                metrics.lag_events.labels(topic, number).set(max(0, end - applied))


def run(settings: Settings) -> None:
    """Ingest until SIGTERM or SIGINT."""
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()  # what is imported stays
    gc.set_threshold(_GC_OBJECTS)
    tracing.start(settings, "eddyline-ingest")
    ingest = Ingest(settings)
    stop.on_signal(
        ingest.stop,
        "Kafka or Redis did not answer; the next ingest goes on at the positions in Redis",
    )
    cli.serve_metrics(settings)
    start.announce(settings, "ingest", settings.ingest_group)
    ingest.run()
    tracing.close()
