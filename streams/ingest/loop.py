"""`streams ingest`: from Kafka into Redis, exactly once.

One partition's way through this process, numbered; the crash tests use these numbers.
`streams.ingest.batcher` does steps 2 to 4, `streams.ingest.apply_thread` 4 and 5;
`store.state.apply.applier` has the steps inside 5.

1. Assigned: read the partition's position from Redis, compare it and the topic's id with the log
   (`streams.ingest.placement`), start `dedup_window` before what Redis lacks.
2. Up to the position, events only fill the duplicate window and what is still to be written of
   popularity.
3. From there on, decode; what cannot be decoded becomes a dead letter, duplicates count nowhere,
   the rest makes batches.
4. Dead letters are published and acknowledged.
5. The batch is applied, the position with it.
6. Kafka is told the position, for lag dashboards only.

Whenever Redis and this process disagree or nobody knows (a lost connection, a position moved by
another process, a server set back), the partition goes back to 1. So there is one way to start, to
recover and to take over. The same happens when the log may be another one: the topic's id changed
(asked every few seconds), an offset went back, or the broker no longer has the offset that comes
next.

The client delivers only committed records (its default isolation level). Control records and
aborted ones leave holes, which it reports as the partition's end at an offset beyond the last
record; the position moves there too.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Collection
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.errors import EddylineError, LogRewound, LogUnavailable, Stale, StoreUnavailable
from core.process import cli, stop
from core.settings import Settings
from store import outage, start
from store.log import client as log
from store.log import ends as log_ends
from store.log.topics.check import TopicCheck
from store.log.topics.ids import TopicId, TopicIds
from store.state import connection, wipe
from store.state.apply import deletions as known_deletions
from store.state.apply import positions
from store.state.apply.pending import PendingPopularity
from store.state.apply.planner import Planner
from store.state.entities import experiments
from store.state.running import Running
from streams import metrics
from streams.ingest.apply_thread import Failure, Partition, Sender
from streams.ingest.batcher import Assigned, Intake, Message
from streams.ingest.deletions import recovery
from streams.ingest.deletions.out_of_reach import drop_out_of_reach
from streams.ingest.foreign_partitions import ForeignPartitions
from streams.ingest.partition_watch import IngestWatch
from streams.ingest.placement import place
from streams.retry import Retry

_log = structlog.get_logger(__name__)

_COMMIT_S = 5.0
"""Seconds between reports of the position to Kafka (what a lag dashboard may be late by) and looks
at whether Redis was set back.
"""
_LAG_S = 1.0
"""Seconds between looks at how many events the log is ahead."""
_IDLE_S = 0.2
"""Seconds that a poll waits for the first event; bounds how late a stop or a failure is noticed."""
_GATHER_S = 0.008
"""Seconds from one taking of events to the next at least. An event that comes alone is taken at
once; with thousands a second, those of 8 ms share one transaction of all partitions, which takes
half the processor time of a transaction for each that comes.
"""
_OFFSET_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
"""The broker has no record at the offset that comes next: the log was trimmed, cut, or is another
one.
"""
_SWITCH_S = 0.0002
"""Seconds after which the planning thread hands the interpreter to the sender; by default 5 ms, for
which Redis would wait.
"""


class Ingest:
    """The consumer loop.

    `run` returns after `stop` was called, from any thread or signal handler.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connection.connect(settings)
        self._stopped = threading.Event()
        self._retry = Retry(self._stopped)
        planner = Planner(settings.use_cases, settings.experiments)
        self._sender = Sender(connection.connect(settings), planner, settings)
        self._topic_names = [
            settings.interactions_topic,
            settings.items_topic,
            settings.users_topic,
        ]
        self._topic_check = TopicCheck(settings)
        self._watch = IngestWatch(settings, self._topic_names)
        self._foreign = ForeignPartitions(self._client, settings.interactions_topic, self._watch)
        self._intake = Intake(
            settings, self._client, planner, self._sender, self._retry, self._foreign.add
        )
        self._assigned: dict[Partition, Assigned] = {}
        self._generation = 0
        self._taken = 0.0  # time.monotonic()
        self._behind = False
        self._running = Running(self._client)
        self._topics = TopicIds(settings, self._topic_names)
        self._topic_ids: dict[str, TopicId] = {}

    def stop(self) -> None:
        """Finish what is under way and return from `run`."""
        self._stopped.set()

    def run(self) -> None:
        """Consume until stopped.

        Raises what no retry mends: LogGap, LogRewound, StoreCorrupt, StoreMisconfigured,
        ConfigurationError.
        """
        settings = self._settings
        if not start.until_ready(settings, self._stopped, self._prepare):
            return
        self._sender.start()
        self._watch.start()
        consumer = Consumer(
            log.consumer_config(settings, settings.ingest_group) | {"enable.partition.eof": True}
        )
        consumer.subscribe(
            self._topic_names,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        _log.info("ingest_started", group=settings.ingest_group, topics=self._topic_names)
        committed = measured = time.monotonic()
        wait = _IDLE_S
        try:
            while not self._stopped.is_set():
                self._check_topics()
                self._mend(consumer)
                wait = self._flush_popularity(besides=self._consume(consumer, wait))
                self._intake.send()
                self._foreign.check()
                now = time.monotonic()
                if now - measured > _LAG_S:
                    measured = now
                    self._measure_lag(consumer)
                if now - committed > _COMMIT_S:
                    committed = now
                    self._commit(consumer)
                    self._check_redis()
        finally:
            self._watch.close()
            self._sender.close()
            self._commit(consumer)
            consumer.close()
            with contextlib.suppress(StoreUnavailable):  # the entry expires by itself
                self._running.end()
            _log.info(
                "ingest_stopped",
                positions={
                    f"{topic}/{number}": at
                    for (topic, number), at in sorted(self._sender.applied.items())
                },
            )

    def _prepare(self) -> None:
        """What must hold before the first event; may be repeated."""
        settings = self._settings
        connection.check_server(self._client)
        self._note_settings()
        self._topic_check.prepare()
        self._running.renew()
        self._running.check_rebuild()
        wipe.check(self._client)
        recovery.recover(settings, self._client)
        if known_deletions.count(self._client, "user") or known_deletions.count(
            self._client, "item"
        ):
            drop_out_of_reach(settings, self._client)

    def _note_settings(self) -> None:
        """What a Redis that is new, was emptied or was set back must hold besides the deletions
        before anything is applied.
        """
        positions.check_settings(self._client, self._settings)
        experiments.save_definitions(self._client, self._settings.experiments)

    def _consume(self, consumer: Consumer, wait: float) -> Collection[Partition]:
        """Wait `wait` seconds for an event, take what else is there, and hand each partition's
        messages on. Answers which had some.
        """
        waited = consumer.consume(1, wait)
        if not waited:
            return ()
        if waited[0].error() is not None:  # no event, so there is nothing to gather for
            self._not_an_event(cast("Message", waited[0]))
            return ()
        if not self._behind:
            time.sleep(max(0.0, self._taken + _GATHER_S - time.monotonic()))
        self._taken = time.monotonic()
        by_partition: dict[Partition, list[Message]] = {}
        others: list[Message] = []
        more = consumer.consume(self._settings.poll_events, 0)
        self._behind = len(more) == self._settings.poll_events
        for message in cast("list[Message]", [*waited, *more]):
            if message.error() is not None:
                others.append(message)
                continue
            partition = (message.topic(), message.partition())
            mine = by_partition.get(partition)
            if mine is None:
                by_partition[partition] = [message]
            else:
                mine.append(message)
        # Users first: an event that came with the deletion of its user is then most often not
        # counted and taken back.
        for partition, messages in sorted(
            by_partition.items(), key=lambda each: each[0][0] != self._settings.users_topic
        ):
            assigned = self._assigned.get(partition)
            if assigned is None:  # revoked between the fetch and now
                continue
            if messages[0].offset() < assigned.read:
                reason = f"offset {messages[0].offset()} came after offset {assigned.read - 1}"
                self._place_again(partition, LogRewound(f"{partition[0]}/{partition[1]}: {reason}"))
            else:
                self._intake.take(partition, assigned, messages)
        for message in others:
            self._not_an_event(message)
        return by_partition.keys()

    def _not_an_event(self, message: Message) -> None:
        """Handle a partition's end, which may lie beyond its last record, and the client's errors.

        Raises LogUnavailable.
        """
        error, partition = message.error(), (message.topic(), message.partition())
        assert error is not None
        assigned = self._assigned.get(partition)
        if error.code() == KafkaError._PARTITION_EOF:
            if assigned is not None and message.offset() > assigned.read:
                self._intake.skip_to(partition, assigned, message.offset())
        elif assigned is not None and error.code() in _OFFSET_GONE:
            self._place_again(
                partition,
                LogUnavailable(f"the broker does not have the next offset: {error.str()}"),
            )
        elif error.fatal():
            raise LogUnavailable(f"the Kafka client gave up: {error.str()}")
        else:
            _log.warning("kafka_client_error", code=error.name(), error=error.str())

    # Step 1

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._read_topic_ids()
        self._reload()
        consumer.incremental_assign(
            [self._place(consumer, (each.topic, each.partition)) for each in partitions]
        )

    def _reload(self) -> None:
        """Recover the deletions, then note the settings: while Redis is emptied again, it is not
        ready, and this is repeated. The other way round, a Redis emptied in between would be ready
        without its settings and experiments.
        """
        self._intake.reload()
        self._retry("noting the settings", self._note_settings)

    def _place(self, consumer: Consumer, partition: Partition) -> TopicPartition:
        """Take up a partition where Redis says, and answer from where to read it."""
        topic, number = partition
        position, low, high = self._retry(
            f"comparing Redis with the log of {topic}/{number}",
            lambda: place(
                self._settings, self._client, consumer, topic, number, self._topic_ids[topic]
            ),
        )
        self._generation += 1
        window = self._settings.dedup_window if topic == self._settings.interactions_topic else 0
        popularity = PendingPopularity(
            self._settings.use_cases, self._settings.popularity_half_life_days, position.popularity
        )
        self._assigned[partition] = Assigned(
            position.offset, self._generation, window, popularity, self._topic_ids[topic]
        )
        self._sender.applied[partition] = position.offset
        _log.info(
            "partition_assigned",
            topic=topic,
            partition=number,
            position=position.offset,
            log=[low, high],
        )
        wanted = (
            position.popularity.first
            if topic == self._settings.interactions_topic
            else position.offset
        )
        return TopicPartition(topic, number, max(low, wanted - window))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._sender.drain()  # so that the next owner starts where we end
        self._commit(consumer)
        self._on_lost(consumer, partitions)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._assigned.pop((each.topic, each.partition), None)
            _log.info("partition_revoked", topic=each.topic, partition=each.partition)

    # Step 5, without events

    def _flush_popularity(self, besides: Collection[Partition]) -> float:
        """Write a piece of the popularity that waits in partitions other than `besides`, whose
        events have taken theirs along.

        One at a time, so that an event waits for a piece and never for a whole cut, which takes
        tenths of a second. Answers how many seconds the next poll may wait.
        """
        wait = _IDLE_S
        for partition, assigned in self._assigned.items():
            if partition[0] != self._settings.interactions_topic or assigned.read < assigned.start:
                continue
            if partition not in besides:
                self._intake.flush(partition, assigned)
            if assigned.popularity.due(assigned.next):
                wait = _GATHER_S
        return wait

    # Back to step 1

    def _mend(self, consumer: Consumer) -> None:
        """Put each partition whose batch failed back to where Redis stands.

        Raises what no retry mends.
        """
        failed: dict[Partition, BaseException] = {}
        while not self._sender.failures.empty():
            failure = self._sender.failures.get()
            assigned = self._assigned.get(failure.partition)
            if assigned is not None and assigned.generation == failure.generation:
                failed[failure.partition] = failure.error
        for partition, error in failed.items():
            if not isinstance(error, Stale | StoreUnavailable | LogUnavailable | LogRewound):
                raise error
            if isinstance(error, StoreUnavailable | LogUnavailable):
                outage.of(error).begin(
                    str(error), f"applying a batch of {partition[0]}/{partition[1]}"
                )
            else:
                _log.warning(
                    "batch_refused", topic=partition[0], partition=partition[1], error=str(error)
                )
            metrics.retries.labels(type(error).__name__).inc()
        if failed:
            self._read_topic_ids()
            self._reload()
            again = [self._place(consumer, partition) for partition in failed]
            outage.REDIS.end()  # placing read the position from Redis and the offsets from Kafka
            outage.KAFKA.end()
            # unlike a seek, this also drops what was fetched already
            consumer.incremental_unassign(again)
            consumer.incremental_assign(again)

    def _place_again(self, partition: Partition, reason: EddylineError) -> None:
        """Have `_mend` compare the partition with Redis and the log before anything else of it is
        taken.
        """
        self._sender.failures.put(Failure(partition, self._assigned[partition].generation, reason))

    def _read_topic_ids(self) -> None:
        self._topic_ids = self._retry("reading the ids of the topics", self._topics.read)

    def _check_topics(self) -> None:
        """Notice a topic that was created anew: its offsets would go on as if they were those of
        the old one.
        """
        for topic, topic_id in self._topics.poll().items():
            if topic_id != self._topic_ids.get(topic, topic_id):
                self._topic_ids[topic] = topic_id
                for partition in self._assigned:
                    if partition[0] == topic:
                        self._place_again(
                            partition,
                            LogRewound(f"{topic} was created anew, with the id {topic_id}"),
                        )

    def _check_redis(self) -> None:
        """Notice a Redis that was set back while a partition had no events, whose next batch would
        have told.
        """
        # noted after the apply, so Redis stands here or further on
        applied = dict(self._sender.applied)
        try:
            self._running.renew()
            stands = {
                partition: positions.read(self._client, *partition).offset
                for partition in self._assigned
            }
        except StoreUnavailable as error:
            outage.REDIS.begin(str(error), "checking positions")
            return
        outage.REDIS.end()
        for partition, stands_at in stands.items():
            if stands_at < applied[partition]:
                stale = Stale(
                    stands_at,
                    (
                        f"{partition[0]}/{partition[1]} was applied up to {applied[partition]}, "
                        f"but Redis stands at {stands_at}"
                    ),
                )
                self._place_again(partition, stale)

    # Step 6

    def _commit(self, consumer: Consumer) -> None:
        offsets = [
            TopicPartition(*partition, self._sender.applied[partition])
            for partition in self._assigned
            if partition in self._sender.applied
        ]
        if offsets:
            try:
                consumer.commit(offsets=offsets, asynchronous=True)
            # costs a dashboard some seconds; the position that counts is in Redis
            except KafkaException as error:
                _log.debug("offset_commit_failed", error=str(error))

    def _measure_lag(self, consumer: Consumer) -> None:
        for partition in self._assigned:
            end = log_ends.known_end(consumer, *partition)
            if end is not None:
                if end < self._sender.applied[partition]:
                    self._place_again(
                        partition,
                        LogRewound(
                            f"{partition[0]}/{partition[1]} ends at {end}, before what was applied"
                        ),
                    )
                metrics.lag_events.labels(*partition).set(
                    max(0, end - self._sender.applied[partition])
                )


def run(settings: Settings) -> None:
    """Ingest until SIGTERM or SIGINT."""
    sys.setswitchinterval(_SWITCH_S)
    ingest = Ingest(settings)

    def end(*_: object) -> None:
        ingest.stop()
        stop.limit(
            "Kafka or Redis did not answer; the next ingest goes on at the positions in Redis"
        )

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    cli.serve_metrics(settings)
    ingest.run()
