"""Makes batches and dead letters of the messages of a partition, for `apply_thread` (steps 2 to 4
of `streams.ingest.loop`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from confluent_kafka import KafkaError

from core import codec
from core.dedup import Dedup
from core.deletions import IdHasher, Kind, Place
from core.errors import BadEvent
from core.settings import Settings
from core.types import Item, User
from store.log import dead_letters
from store.log.message import LogMessage
from store.state.apply.batches import NO_POPULARITY, Batch, Event, KnownDeletions, OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.pending import PendingPopularity
from store.state.apply.planner import Planner
from store.state.connection import Client
from streams import metrics
from streams.ingest.apply_thread import Outgoing, Partition, Sender, Work
from streams.ingest.deletions import recovery
from streams.retry import Retry

_log = structlog.get_logger(__name__)

_TOGETHER = 250
"""Events of several partitions in one transaction, and one piece of popularity: some 3 ms of Redis.
"""

PIECE_S = 0.1
"""Seconds from one piece of a partition's popularity to its next while events are few: PIECES of
them take as long as what they hold took to gather. Written without a pause they would take most of
a core for a second.
"""


class Message(Protocol):
    """A message as a consumer answers it: unlike one made by hand, it has coordinates and a
    time.
    """

    def topic(self) -> str:
        """Name of the topic."""
        ...

    def partition(self) -> int:
        """Number of the partition."""
        ...

    def offset(self) -> int:
        """Position in the partition."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """Kind of time, and the broker's time in milliseconds since 1970."""
        ...

    def key(self) -> bytes | None:
        """The key, if any."""
        ...

    def value(self) -> bytes | None:
        """The value; None deletes."""
        ...

    def error(self) -> KafkaError | None:
        """The client's error in place of a message."""
        ...


class Assigned:
    """One partition in our hands.

    Offsets below `start` are only remembered, `next` is the first one not yet in a batch.
    """

    def __init__(
        self,
        start: int,
        generation: int,
        window: int,
        popularity: PendingPopularity,
        topic_id: str | None = None,
    ) -> None:
        """`window`: of duplicates, in offsets; `topic_id`: as the broker tells it, if it does."""
        self.topic_id = topic_id
        self.start = start
        self.next = start
        self.generation = generation
        self.dedup = Dedup(window)
        self.popularity = popularity
        self.wrote_popularity = float("-inf")  # time.monotonic()
        # the offset after the last one read; below `start` the window is still being read
        self.read = 0


class Intake:
    """Reads messages into batches, in order of each partition, and queues them for `sender`, small
    ones of several partitions together.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        planner: Planner,
        sender: Sender,
        retry: Retry,
        check_partition: Callable[[int, Sequence[Event]], None],
    ) -> None:
        """`check_partition`: called with the events of each batch of interactions and their
        partition.
        """
        self._settings = settings
        self._client = client
        self._planner = planner
        self._sender = sender
        self._retry = retry
        self._check_partition = check_partition
        self._hasher = IdHasher(settings.deletion_salt)
        self._waiting: dict[Partition, Work] = {}
        self._take: dict[str, Callable[[Partition, Assigned, Sequence[Message]], None]] = {
            settings.interactions_topic: self._take_interactions,
            settings.items_topic: self._take_items,
            settings.users_topic: self._take_users,
        }

    def reload(self) -> None:
        """Believe Redis alone, which may have been emptied or set back: due before a partition is
        taken up.

        Raises ConfigurationError, StoreCorrupt.
        """
        self._retry("recovering deletions", lambda: recovery.recover(self._settings, self._client))
        self._planner.forget()

    def take(self, partition: Partition, assigned: Assigned, messages: Sequence[Message]) -> None:
        """Put `messages` into batches; they follow each other, and what was taken before, in the
        log. `send` queues the last of them.
        """
        self._take[partition[0]](partition, assigned, messages)
        assigned.read = messages[-1].offset() + 1

    def skip_to(self, partition: Partition, assigned: Assigned, end: int) -> None:
        """Move on to `end`, up to which the partition holds no more records, only what a
        transaction or compaction left behind.
        """
        assigned.read = end
        if end <= assigned.next:
            return
        if partition[0] == self._settings.interactions_topic:
            self._put(partition, assigned, end, [], [])
        else:
            self._put_alone(
                assigned, EntryBatch(OffsetRange(*partition, assigned.next, end), []), []
            )

    def flush(self, partition: Partition, assigned: Assigned) -> None:
        """Take one piece of the popularity that waits to be written, if it is due and no other
        piece is taken. `send` queues it.
        """
        if self._may_write_popularity(assigned, 0):
            self._put(partition, assigned, assigned.next, [], [])

    def send(self) -> None:
        """Queue what was taken and is not queued yet."""
        works, self._waiting = self._waiting, {}
        if works:
            self._sender.put(*works.values())

    def _take_interactions(
        self, partition: Partition, assigned: Assigned, messages: Sequence[Message]
    ) -> None:
        topic, number = partition
        use_cases, dedup, start = self._settings.use_cases, assigned.dedup, assigned.start
        most = self._settings.transaction_events
        decode, seen, popular = (
            codec.decode_interaction,
            dedup.is_duplicate,
            assigned.popularity.add,
        )
        events: list[Event] = []
        before: list[Outgoing] = []
        duplicates = 0
        for message in messages:
            offset = message.offset()
            broker_time = message.timestamp()[1] / 1000
            try:
                interaction = decode(message.value(), broker_time, use_cases)
            except BadEvent as bad:
                if offset >= start:
                    before.append(self._dead_letter(message, bad))
                continue
            if seen(interaction.event_id, offset):
                duplicates += offset >= start
                continue
            popular(offset, interaction, broker_time)
            if offset >= start:
                events.append(Event(interaction, broker_time))
                if len(events) == most:
                    self._put(partition, assigned, offset + 1, events, before)
                    events, before = [], []
        end = messages[-1].offset() + 1
        if end > start:
            self._put(partition, assigned, end, events, before)
        metrics.duplicates.inc(duplicates)
        metrics.lag_seconds.labels(topic, number).set(
            max(0.0, time.time() - messages[-1].timestamp()[1] / 1000)
        )

    def _put(
        self,
        partition: Partition,
        assigned: Assigned,
        next_: int,
        events: list[Event],
        before: list[Outgoing],
    ) -> None:
        if next_ == assigned.next and not assigned.popularity.due(next_):
            return
        if (
            partition in self._waiting
            or sum(len(work.batch.events) for work in self._waiting.values()) + len(events)
            > _TOGETHER
        ):
            self.send()
        piece = (
            assigned.popularity.piece(next_)
            if self._may_write_popularity(assigned, len(events))
            else NO_POPULARITY
        )
        if piece.mark is not None:
            assigned.wrote_popularity = time.monotonic()
        elif next_ == assigned.next:
            return
        batch = self._planner.plan(
            OffsetRange(*partition, assigned.next, next_),
            events,
            KnownDeletions(self._sender.deletions_version, {}),
            piece,
        )
        assigned.next = next_
        self._waiting[partition] = Work(batch, assigned.generation, before)
        metrics.events.inc(len(events))
        self._check_partition(partition[1], events)

    def _may_write_popularity(self, assigned: Assigned, events: int) -> bool:
        """One piece a transaction, and one of a partition in PIECE_S: else events wait for piece
        after piece. Many `events` pay for one.
        """
        if any(
            isinstance(work.batch, Batch) and work.batch.popularity.mark is not None
            for work in self._waiting.values()
        ):
            return False
        return events >= _TOGETHER or time.monotonic() - assigned.wrote_popularity >= PIECE_S

    def _take_items(
        self, partition: Partition, assigned: Assigned, messages: Sequence[Message]
    ) -> None:
        self._take_entries("item", partition, assigned, messages, codec.decode_item)

    def _take_users(
        self, partition: Partition, assigned: Assigned, messages: Sequence[Message]
    ) -> None:
        self._take_entries("user", partition, assigned, messages, codec.decode_user)

    def _take_entries(
        self,
        kind: Kind,
        partition: Partition,
        assigned: Assigned,
        messages: Sequence[Message],
        decode: Callable[[bytes], Item | User],
    ) -> None:
        """Each batch in a transaction of its own: what it deletes must not come back by an earlier
        batch of events beside it.
        """
        most = self._settings.transaction_events
        for start in range(0, len(messages), most):
            part = messages[start : start + most]
            entries, before = self._entries(kind, assigned, part, decode)
            self._put_alone(
                assigned,
                EntryBatch(OffsetRange(*partition, assigned.next, part[-1].offset() + 1), entries),
                before,
            )

    def _put_alone(self, assigned: Assigned, batch: EntryBatch, before: list[Outgoing]) -> None:
        self.send()
        assigned.next = batch.offsets.next
        self._sender.put(Work(batch, assigned.generation, before))

    def _entries(
        self,
        kind: Kind,
        assigned: Assigned,
        messages: Sequence[Message],
        decode: Callable[[bytes], Item | User],
    ) -> tuple[list[Entry], list[Outgoing]]:
        entries: list[Entry] = []
        before: list[Outgoing] = []
        for message in messages:
            try:
                identifier = codec.decode_id(message.key())
                data = message.value()
                value = (
                    None
                    if data is None
                    else codec.encode_json(codec.require_key(decode(data), identifier))
                )
            except BadEvent as bad:
                before.append(self._dead_letter(message, bad))
                continue
            place = Place(
                message.timestamp()[1] / 1000,
                message.partition(),
                message.offset(),
                assigned.topic_id,
            )
            entries.append(Entry(kind, self._hasher(kind, identifier), identifier, place, value))
        return entries, before

    def _dead_letter(self, message: Message, bad: BadEvent) -> Outgoing:
        metrics.dead_letters.labels(bad.code).inc()
        _log.warning(
            "dead_letter",
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            code=bad.code,
            reason=str(bad),
        )
        record = dead_letters.encode(LogMessage.of(message), bad)
        return Outgoing(self._settings.dlq_topic, record.key, record.value, record.headers)
