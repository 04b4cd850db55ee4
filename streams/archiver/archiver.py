"""`python -m streams archive`: the interactions topic to Parquet, every offset once.

1. A partition is assigned: finish or remove what a crashed writer left, read the archive's position
   from the file names, check that the log still holds it and is the same topic, and seek there.
2. Poll; every message, valid or not, becomes a row in its partition's buffer. The partition's end
   may lie beyond its last message (control records and aborted messages are never delivered): the
   buffer's range reaches up to there.
3. A buffer is finished by count (ARCHIVE_FILE_EVENTS), by age (ARCHIVE_FILE_S), by size
   (BUFFER_BYTES), when the partition is revoked, and at the end: once the broker has confirmed the
   topic's id after the buffer's last row was read, it is published as one file
   (store/archive/publish.py has the protocol that keeps two writers from overlapping).
4. Overtaken, because this process was paused and another one took its place: the rows are dropped,
   and reading goes on at the archive's position.
5. The position is committed to Kafka, for lag dashboards alone; nothing here reads it back.

A crash anywhere loses buffers only, and their offsets are read again.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from prometheus_client import Counter, Gauge

from core.errors import LogError, LogGap, LogRewound, LogUnavailable, Overtaken
from core.process import cli, stop
from core.redaction import shown_url
from core.settings import Settings
from store import start
from store.archive.layout import SCHEMA, Archive
from store.log import client as log
from store.log import ends as log_ends
from store.log.topics.check import TopicCheck
from store.log.topics.ids import TopicId, TopicIds
from streams.archiver.rows import to_batch
from streams.ingest.partition_watch import PartitionWatch
from streams.retry import Retry

_log = structlog.get_logger(__name__)

BUFFER_BYTES = 64 * 1024 * 1024
"""Bytes in one partition's buffer at which its file is finished, however few events they are:
contexts may be large.
"""
POLL_S = 0.25
"""Seconds that a poll waits: how late an age or a signal is noticed."""
REPORT_S = 10.0
"""Seconds between progress lines."""

ROWS = Counter("eddyline_archive_rows", "Messages archived", ["kind"])
FILES = Counter("eddyline_archive_files", "Archive files published")
BYTES = Counter("eddyline_archive_buffered_bytes", "Bytes of rows before compression")
OVERTAKEN = Counter(
    "eddyline_archive_overtaken", "Buffers dropped because another process had archived their range"
)
POSITION = Gauge("eddyline_archive_position", "Next offset the archive wants", ["partition"])
BUFFERED = Gauge("eddyline_archive_buffered_rows", "Rows waiting for their file to be finished")


class Buffer:
    """Rows of one partition that wait to be published as the range [first, next)."""

    def __init__(self, first: int) -> None:
        self.first = self.next = first
        self.batches: list[pa.RecordBatch] = []
        self.rows = self.bytes = 0
        self.since = self.read_at = time.monotonic()

    @property
    def pending(self) -> bool:
        """Whether there is anything to publish: rows, or offsets that hold none."""
        return self.next > self.first

    def add(self, batch: pa.RecordBatch) -> None:
        """`batch` follows what is here."""
        self.batches.append(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        self.reach(batch.column("offset")[-1].as_py() + 1)

    def reach(self, next_: int) -> None:
        """Extend the range to `next_`; the age counts from the first time."""
        now = time.monotonic()
        if not self.pending:
            self.since = now
        self.next, self.read_at = next_, now


class Archiver:
    """One archive process. Call `run`, from one thread."""

    def __init__(self, settings: Settings, accept_gap: bool = False) -> None:
        """`accept_gap`: record offsets that the log no longer holds as an empty range, rather than
        stop with LogGap.
        """
        self._settings, self._accept_gap = settings, accept_gap
        self._topic = settings.interactions_topic
        self._archive = Archive(settings.archive_url)
        self._buffers: dict[int, Buffer] = {}
        self._assigned = False
        self._topics = TopicIds(settings, [self._topic])
        self._topic_id: TopicId = None
        self._consumer = Consumer(
            log.consumer_config(settings, settings.archive_group) | {"enable.partition.eof": True}
        )
        self._ends: dict[int, int] = {}
        self._topic_check = TopicCheck(settings)
        self._watch = PartitionWatch(settings, [self._topic])
        self._stopped = threading.Event()
        self._retry = Retry(self._stopped)
        self.archived = 0

    def stop(self) -> None:
        """Publish what is buffered and return from `run`. From any thread or signal handler."""
        self._stopped.set()

    def run(self, until_idle: bool = False) -> int:
        """Archive until `stop` was called, or until every partition of this process is at the log's
        end.

        Answers the number of rows archived. Raises LogGap, LogRewound, LogUnavailable,
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
        reported, done = time.monotonic(), 0
        try:
            while not self._stopped.is_set():
                messages = self._consumer.consume(self._settings.poll_events, POLL_S)
                self._take(messages)
                for topic_id in self._topics.poll().values():
                    self._check_topic(topic_id)
                now = time.monotonic()
                for partition, buffer in list(self._buffers.items()):
                    if buffer.pending and now - buffer.since >= self._settings.archive_file_s:
                        self._finish(partition)
                BUFFERED.set(sum(buffer.rows for buffer in self._buffers.values()))
                if now - reported >= REPORT_S:
                    _log.info(
                        "archiving",
                        rows_per_s=round((self.archived - done) / (now - reported)),
                        archived=self.archived,
                        positions={
                            partition: buffer.next
                            for partition, buffer in sorted(self._buffers.items())
                        },
                    )
                    reported, done = now, self.archived
                if until_idle and not messages and self._assigned and self._idle():
                    break
            for partition in list(self._buffers):
                self._finish_or_drop(partition)
        finally:
            self._watch.close()
            self._consumer.close()
        return self.archived

    def _take(self, messages: Sequence[Any]) -> None:
        """Step 2."""
        good: dict[int, list[Any]] = {}
        ended = set()
        for message in messages:
            error = message.error()
            if error is None:
                good.setdefault(message.partition(), []).append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
                self._ends[message.partition()] = message.offset()
            else:
                self._check_error(message.partition(), error)
        for partition, wanted in good.items():
            buffer = self._buffers.get(partition)
            rest = [
                message
                for message in wanted
                if buffer is not None and message.offset() >= buffer.next
            ]
            while rest:
                buffer = self._buffers[partition]
                room = self._settings.archive_file_events - buffer.rows
                buffer.add(to_batch(partition, rest[:room], self._settings.use_cases))
                rest = rest[room:]
                is_full = (
                    buffer.rows >= self._settings.archive_file_events
                    or buffer.bytes >= BUFFER_BYTES
                )
                if is_full and not self._finish(partition):
                    break
        for partition in ended & self._buffers.keys():
            if self._ends.get(partition, 0) > self._buffers[partition].next:
                self._buffers[partition].reach(self._ends[partition])

    def _finish(self, partition: int) -> bool:
        """Steps 3 to 5.

        False when another process was first. Raises LogRewound; LogUnavailable only once stopped.
        """
        buffer = self._buffers[partition]
        if not buffer.pending:
            return True
        if self._topics.confirmed_at <= buffer.read_at:
            self._check_topic(
                self._retry("reading the id of the topic", self._topics.read)[self._topic]
            )
        table = pa.Table.from_batches(buffer.batches, SCHEMA)
        try:
            self._archive.append(
                self._topic, partition, buffer.first, buffer.next, table, self._topic_id
            )
        except Overtaken as error:
            self._overtaken(partition, buffer, error)
            return False
        invalid = table.num_rows - table.column("error").null_count
        ROWS.labels("event").inc(table.num_rows - invalid)
        ROWS.labels("dead_letter").inc(invalid)
        FILES.inc()
        BYTES.inc(buffer.bytes)
        POSITION.labels(str(partition)).set(buffer.next)
        self.archived += table.num_rows
        self._buffers[partition] = Buffer(buffer.next)
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, partition, buffer.next)], asynchronous=True
            )
        except KafkaException as error:
            _log.debug("commit for lag dashboards failed", error=str(error))
        return True

    def _finish_or_drop(self, partition: int) -> None:
        """Finish a buffer at the end of our turn; its rows are read again later if the broker
        cannot confirm the topic's id now.
        """
        try:
            self._finish(partition)
        except LogUnavailable as error:
            _log.warning(
                "buffer_dropped",
                partition=partition,
                rows=self._buffers[partition].rows,
                error=str(error),
            )

    def _check_topic(self, topic_id: TopicId) -> None:
        """Raises LogRewound when the topic was created anew since partitions were assigned: its
        offsets are not the archive's.
        """
        if self._buffers and topic_id != self._topic_id:
            raise LogRewound(
                f"{self._topic} was created anew while it was archived: its id was "
                f"{self._topic_id} and is {topic_id}; nothing of the new "
                f"topic was archived. {self._way_out()}"
            )

    def _way_out(self) -> str:
        return (
            f"Set another ARCHIVE_URL (or move the folder {self._topic} in "
            f"{shown_url(self._settings.archive_url)} aside) "
            f"and start archive again: it "
            "begins where the log begins"
        )

    def _overtaken(self, partition: int, buffer: Buffer, error: Overtaken) -> None:
        """Step 4."""
        position = self._archive.position(self._topic, partition)
        OVERTAKEN.inc()
        _log.warning(
            "overtaken",
            partition=partition,
            dropped=buffer.rows,
            first=buffer.first,
            position=position,
            reason=str(error),
        )
        self._buffers[partition] = Buffer(position)
        self._ends.pop(partition, None)
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, position))
        # the partition is not ours any more: the rebalance that says so is on its way
        except KafkaException:
            del self._buffers[partition]

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Step 1. What is raised in here comes out of `consume`."""
        ids = self._retry("reading the id of the topic", self._topics.read)
        self._check_topic(ids[self._topic])
        self._topic_id = ids[self._topic]
        for assigned in partitions:
            assigned.offset = self._start(assigned.partition)
        consumer.incremental_assign(partitions)
        self._assigned = True
        _log.info(
            "partitions taken",
            positions={assigned.partition: assigned.offset for assigned in partitions},
        )

    def _start(self, partition: int) -> int:
        """The offset from which to read `partition`.

        Raises LogGap, LogRewound, LogUnavailable, ArchiveError.
        """
        where = f"{self._topic}/{partition}"
        self._archive.recover(self._topic, partition)
        position = self._archive.position(self._topic, partition)
        before = self._archive.topic_id(self._topic, partition)
        low, high = log_ends.ends(self._settings, self._consumer, self._topic, partition, position)
        if before is not None and self._topic_id is not None and before != self._topic_id:
            raise LogRewound(
                f"{where} was created anew: the archive was written from topic id {before}, "
                f"the broker has {self._topic_id}. "
                f"{self._way_out()}"
            )
        if position > high:
            raise LogRewound(
                f"{where}: the archive holds offsets up to {position - 1}, but the log ends "
                f"at {high}: it was created anew or lost events. "
                f"Restore the broker's log. If that is impossible: {self._way_out()}"
            )
        if position < low:
            if not self._archive.holds_rows(self._topic, partition):
                _log.warning(
                    "log_begins_late",
                    partition=partition,
                    begins=low,
                    reason="retention removed what was before",
                )
            elif not self._accept_gap:
                raise LogGap(
                    f"{where}: the archive ends at offset {position}, but the log begins at "
                    f"{low}: {low - position} offsets between are "
                    "gone. Restore newer archive files from a backup, or run `python -m "
                    "streams archive --accept-gap` to record the "
                    "gap and go on"
                )
            else:
                _log.warning("gap_accepted", partition=partition, first=position, next=low)
            self._archive.append(
                self._topic, partition, position, low, SCHEMA.empty_table(), self._topic_id
            )
            position = low
        self._buffers[partition] = Buffer(position)
        self._ends.pop(partition, None)
        POSITION.labels(str(partition)).set(position)
        return position

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Hand over cleanly: what is buffered becomes a file, so that the next owner need not read
        it again.
        """
        for revoked in partitions:
            if revoked.partition in self._buffers:
                self._finish_or_drop(revoked.partition)
                self._buffers.pop(revoked.partition, None)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Others own these already, and read the same offsets again."""
        for lost in partitions:
            self._buffers.pop(lost.partition, None)
        _log.warning("partitions lost", partitions=[lost.partition for lost in partitions])

    def _check_error(self, partition: int, error: KafkaError) -> None:
        """Start the partition again when its next offset is gone; raise what cannot be waited out;
        the client mends the rest by itself.
        """
        if (
            error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
            and partition in self._buffers
        ):
            _log.warning("offset_gone", partition=partition, error=error.str())
            self._finish(partition)
            del self._buffers[partition]
            again = [TopicPartition(self._topic, partition)]
            self._consumer.incremental_unassign(again)
            self._on_assign(self._consumer, again)
            return
        if error.fatal() or error.code() in (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
        ):
            raise LogError(f"reading {self._topic} failed: {error.str()}")
        _log.warning("kafka", error=error.str())

    def _idle(self) -> bool:
        """Whether every partition was read up to its end."""
        return all(
            self._ends.get(partition) == buffer.next for partition, buffer in self._buffers.items()
        )


def run(settings: Settings, until_idle: bool = False, accept_gap: bool = False) -> int:
    """Archive until SIGTERM or SIGINT, or until idle. Answers the number of rows archived."""
    archiver = Archiver(settings, accept_gap)

    def end(*_: object) -> None:
        archiver.stop()
        stop.limit(
            "Kafka or the archive's store did not answer; the next archive goes on at the "
            "positions in the file names"
        )

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    cli.serve_metrics(settings)
    archived = archiver.run(until_idle)
    _log.info("archive has stopped", rows=archived, archive=shown_url(settings.archive_url))
    return archived
