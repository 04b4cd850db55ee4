"""Consumes the interactions topic and publishes its messages as Parquet files, every offset once.

1. A partition is assigned: clean up what a crashed writer left, read the archive's position from
   the file names, check that the log still holds this offset and is the same topic, and seek there.
2. Poll: every message, valid or not, becomes a row in its partition's buffer. The partition may end
   after its last message (control records and aborted messages are never delivered): the buffer's
   range then extends to that end.
3. Publish a buffer as one file when it is full (ARCHIVE_FILE_EVENTS, BUFFER_BYTES) or old
   (ARCHIVE_FILE_S), when its partition is revoked, and at the end. The broker must have confirmed
   the topic's id after the buffer's last row was read (store/archive/publish.py has the protocol
   that keeps two writers from overlapping).
4. Overtaken, because this process was paused and another one took its place: drop the rows and go
   on at the archive's position.
5. Commit the position to Kafka for lag dashboards only; nothing here reads it back.

A crash loses buffers only, and their offsets are read again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.errors import LogError, LogUnavailable, Overtaken
from core.settings import Settings
from store import start
from store.archive.archive import Archive
from store.log import client as log
from store.log.access import permissions
from store.log.topics.check import TopicCheck
from store.log.topics.ids import TopicId, TopicIds
from streams.archiver import metrics
from streams.archiver.buffer import Buffer
from streams.archiver.rows import to_batch
from streams.archiver.start_offset import StartOffsets, topic_changed
from streams.ingest.partition_watch import PartitionWatch
from streams.retry import Retry

_log = structlog.get_logger(__name__)

POLL_S = 0.25
"""Longest wait of a poll in seconds: how late an old buffer or a signal is noticed."""
REPORT_S = 10.0
"""Seconds between two progress lines in the log."""


class Archiver:
    """One archive process. Call `run`, from one thread."""

    def __init__(self, settings: Settings, accept_gap: bool = False) -> None:
        """Connects nothing before `run`.

        `accept_gap`: record offsets that the log no longer holds as an empty range instead of
        raising LogGap.
        """
        self._settings = settings
        self._topic = settings.interactions_topic
        self._archive = Archive(settings.archive_url)
        self._start_offsets = StartOffsets(settings, self._archive, accept_gap)
        self._buffers: dict[int, Buffer] = {}
        self._ends: dict[int, int] = {}
        self._reported: dict[int, int] = {}
        self._assigned = False
        self._topic_ids = TopicIds(settings, [self._topic])
        self._topic_id: TopicId = None
        self._confirmed_at = 0.0  # time.monotonic(); what was read earlier is of `_topic_id`
        self._consumer = Consumer(
            log.consumer_config(settings, settings.archive_group) | {"enable.partition.eof": True}
        )
        self._topic_check = TopicCheck(settings, permissions.of_archive)
        self._watch = PartitionWatch(settings, [self._topic])
        self._stopped = threading.Event()
        self._retry = Retry(self._stopped)
        self.archived = 0

    def stop(self) -> None:
        """Publish what is buffered and return from `run`. From any thread or signal handler."""
        self._stopped.set()

    def run(self, until_idle: bool = False) -> int:
        """Archive until `stop`, or until every partition of this process is at the log's end.

        Returns the number of rows archived. Raises LogGap, LogRewound, LogUnavailable,
        ArchiveError.
        """
        if not start.until_ready(self._settings, self._stopped, self._topic_check.prepare):
            return 0
        self._watch.start()
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        reported_at, reported_rows = time.monotonic(), 0
        try:
            while not self._stopped.is_set():
                messages = self._consumer.consume(self._settings.poll_events, POLL_S)
                self._buffer(messages)
                for topic_id in self._topic_ids.poll().values():
                    self._check_topic(topic_id)
                now = time.monotonic()
                for partition, buffer in list(self._buffers.items()):
                    if buffer.is_due(self._settings, now):
                        self._publish(partition)
                metrics.BUFFERED.set(sum(buffer.rows for buffer in self._buffers.values()))
                if now - reported_at >= REPORT_S:
                    self._report((self.archived - reported_rows) / (now - reported_at))
                    reported_at, reported_rows = now, self.archived
                if until_idle and not messages and self._assigned and self._is_idle():
                    break
            for partition in list(self._buffers):
                self._publish_or_drop(partition)
        finally:
            self._watch.close()
            self._consumer.close()
        return self.archived

    def _report(self, rows_per_s: float) -> None:
        positions = {partition: buffer.next for partition, buffer in sorted(self._buffers.items())}
        rate, rows = round(rows_per_s), self.archived
        if positions != self._reported:
            _log.info("archive_progress", rows_per_s=rate, archived=rows, positions=positions)
        self._reported = positions

    def _buffer(self, messages: Sequence[Any]) -> None:
        """Step 2."""
        by_partition: dict[int, list[Any]] = {}
        at_end = set()
        for message in messages:
            error = message.error()
            if error is None:
                by_partition.setdefault(message.partition(), []).append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
                self._ends[message.partition()] = message.offset()
            else:
                self._handle_error(message.partition(), error)
        for partition, read in by_partition.items():
            if partition in self._buffers:
                self._buffer_partition(partition, read)
        for partition in at_end & self._buffers.keys():
            if self._ends.get(partition, 0) > self._buffers[partition].next:
                self._buffers[partition].extend(self._ends[partition])

    def _buffer_partition(self, partition: int, messages: Sequence[Any]) -> None:
        next_ = self._buffers[partition].next
        remaining = [message for message in messages if message.offset() >= next_]
        while remaining:
            buffer = self._buffers[partition]
            room = self._settings.archive_file_events - buffer.rows
            settings = self._settings
            rows = to_batch(partition, remaining[:room], settings.use_cases, settings.tolerance)
            buffer.add(rows)
            remaining = remaining[room:]
            if buffer.is_full(self._settings) and not self._publish(partition):
                return

    def _publish(self, partition: int) -> bool:
        """Steps 3 to 5; False when another process had archived the range.

        Raises LogRewound, and LogUnavailable only once stopped.
        """
        buffer = self._buffers[partition]
        if not buffer.pending:
            return True
        if self._confirmed_at <= buffer.read_at:
            self._check_topic(self._read_topic_id())
        table = buffer.table()
        try:
            self._archive.append(
                self._topic, partition, buffer.first, buffer.next, table, self._topic_id
            )
        except Overtaken as error:
            self._drop_overtaken(partition, buffer, error)
            return False
        invalid = table.num_rows - table.column("error").null_count
        metrics.ROWS.labels("event").inc(table.num_rows - invalid)
        metrics.ROWS.labels("dead_letter").inc(invalid)
        metrics.FILES.inc()
        metrics.BYTES.inc(buffer.bytes)
        metrics.POSITION.labels(str(partition)).set(buffer.next)
        self.archived += table.num_rows
        self._buffers[partition] = Buffer(buffer.next)
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, partition, buffer.next)], asynchronous=True
            )
        except KafkaException as error:
            _log.debug("offset_commit_failed", partition=partition, error=str(error))
        return True

    def _publish_or_drop(self, partition: int) -> None:
        """Publish the last buffer of a partition, or drop it if Kafka is unreachable.

        Without the topic's id it must not be published; its rows are read again later.
        """
        try:
            self._publish(partition)
        except LogUnavailable as error:
            rows = self._buffers[partition].rows
            _log.warning("buffer_dropped", partition=partition, rows=rows, error=str(error))

    def _drop_overtaken(self, partition: int, buffer: Buffer, error: Overtaken) -> None:
        """Step 4."""
        position = self._archive.position(self._topic, partition)
        metrics.OVERTAKEN.inc()
        _log.warning(
            "archive_overtaken",
            partition=partition,
            rows_dropped=buffer.rows,
            first=buffer.first,
            position=position,
            error=str(error),
        )
        self._buffers[partition] = Buffer(position)
        self._ends.pop(partition, None)
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, position))
        except KafkaException:  # the partition is no longer assigned; its revocation follows
            del self._buffers[partition]

    def _read_topic_id(self) -> TopicId:
        return self._retry("reading the id of the topic", self._topic_ids.read)[self._topic]

    def _check_topic(self, topic_id: TopicId) -> None:
        """Raise LogRewound when the topic was created anew since partitions were assigned.

        Its offsets are not those of the archive, so buffers that may hold its rows are dropped.
        """
        if self._buffers and topic_id != self._topic_id:
            for partition, buffer in list(self._buffers.items()):
                if buffer.read_at >= self._confirmed_at:
                    del self._buffers[partition]  # else closing the consumer would publish it
            raise topic_changed(self._settings, self._topic_id, topic_id)
        self._confirmed_at = self._topic_ids.confirmed_at

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Step 1. `consume` raises what is raised here."""
        topic_id = self._read_topic_id()
        self._check_topic(topic_id)
        self._topic_id = topic_id
        for assigned in partitions:
            partition = assigned.partition
            assigned.offset = self._start_offsets.find(self._consumer, partition, topic_id)
            self._buffers[partition] = Buffer(assigned.offset)
            self._ends.pop(partition, None)
            metrics.POSITION.labels(str(partition)).set(assigned.offset)
        consumer.incremental_assign(partitions)
        self._assigned = True
        positions = {assigned.partition: assigned.offset for assigned in partitions}
        _log.info("partitions_assigned", topic=self._topic, positions=positions)

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Publish what is buffered, so that the next owner need not read it again."""
        for revoked in partitions:
            if revoked.partition in self._buffers:
                self._publish_or_drop(revoked.partition)
                self._buffers.pop(revoked.partition, None)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop the buffers: other processes own these partitions and read the same offsets."""
        for lost in partitions:
            self._buffers.pop(lost.partition, None)
        numbers = [lost.partition for lost in partitions]
        _log.warning("partitions_lost", topic=self._topic, partitions=numbers)

    def _handle_error(self, partition: int, error: KafkaError) -> None:
        """Assign the partition again when the log no longer holds its next offset.

        Raises LogError when a retry cannot help. The client retries after all other errors.
        """
        if (
            error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
            and partition in self._buffers
        ):
            _log.warning("offset_out_of_range", partition=partition, error=error.str())
            self._publish(partition)
            del self._buffers[partition]
            partitions = [TopicPartition(self._topic, partition)]
            self._consumer.incremental_unassign(partitions)
            self._on_assign(self._consumer, partitions)
            return
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise log.unreachable(self._settings, f"reading {self._topic}", KafkaException(error))
        if error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise LogError(f"reading {self._topic} failed: {error.str()}")
        _log.warning("kafka_client_error", error=error.str())

    def _is_idle(self) -> bool:
        """Whether every partition was read up to its end."""
        return all(
            self._ends.get(partition) == buffer.next for partition, buffer in self._buffers.items()
        )
