"""Decodes the messages of a partition (steps 2 and 3 of `streams.ingest.loop`): valid ones become
events or entries, the others dead letters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaError

from core import codec
from core.contract.times import check_record_time, is_plausible
from core.deletions import IdHasher, Place
from core.errors import BadEvent
from core.settings import Settings
from core.types import Interaction, Item, User
from store.log import dead_letters
from store.log.dead_letters import Record
from store.log.message import LogMessage
from store.state.apply.batches import Event
from store.state.apply.entries import Entry
from store.state.shards import UserCheck
from streams import metrics
from streams.ingest.partition import EntryPartition, InteractionPartition
from streams.unknown_fields import UnknownFields

_log = structlog.get_logger(__name__)


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

    def headers(self) -> list[tuple[str, bytes]] | None:
        """The headers, None without any."""
        ...


class Interactions(NamedTuple):
    """Decoded interactions, up to the offset `next`."""

    next: int
    events: list[Event]
    """The events that count: valid, and no duplicates."""
    dead_letters: list[Record]


class Entries(NamedTuple):
    """Decoded items or profiles, up to the offset `next`."""

    next: int
    entries: list[Entry]
    dead_letters: list[Record]


class Decoder:
    """Decodes messages; at most `transaction_events` of them make one answer."""

    def __init__(self, settings: Settings) -> None:
        self._use_cases, self._most = settings.use_cases, settings.transaction_events
        self._tolerance = settings.tolerance
        self._hasher = IdHasher(settings.deletion_salt)
        self._users = UserCheck(settings.redis_shards)
        self._one_shard = settings.redis_shards == 1
        self._unknown_fields = {kind: UnknownFields(kind) for kind in (Interaction, Item, User)}

    def interactions(
        self, partition: InteractionPartition, messages: Sequence[Message]
    ) -> Iterator[Interactions]:
        """Decode `messages`, which follow those that the partition has read.

        Plan each answer before the next one is taken: the partition's popularity then holds the
        events of this answer, and none after it.
        """
        use_cases, tolerance, most = self._use_cases, self._tolerance, self._most
        start, topic, number = partition.start, partition.topic, partition.number
        decode, is_duplicate = codec.decode_interaction, partition.dedup.is_duplicate
        add_popularity = partition.popularity.add
        check_user, one_shard = self._users.check, self._one_shard
        events: list[Event] = []
        letters: list[Record] = []
        duplicates = 0
        for message in messages:
            offset = message.offset()
            broker_time = message.timestamp()[1] / 1000  # as _time, without its call
            try:
                interaction = decode(message.value(), broker_time, use_cases, tolerance)
                if not one_shard:
                    check_user(interaction.user_id, number)
            except BadEvent as bad:
                if offset >= start:
                    letters.append(_dead_letter(message, bad))
                continue
            if is_duplicate(interaction.event_id, offset):
                duplicates += offset >= start
                continue
            add_popularity(offset, interaction, broker_time)
            if offset >= start:
                events.append(Event(interaction, broker_time))
                if len(events) == most:
                    yield Interactions(offset + 1, events, letters)
                    events, letters = [], []
        end = messages[-1].offset() + 1
        if end > start:
            yield Interactions(end, events, letters)
            self._unknown_fields[Interaction].sample(
                messages,
                lambda message: decode(message.value(), _time(message), use_cases, tolerance),
            )
        metrics.duplicates.inc(duplicates)
        if is_plausible(newest := _time(messages[-1])):
            metrics.lag_seconds.labels(topic, number).set(max(0.0, time.time() - newest))

    def entries(self, partition: EntryPartition, messages: Sequence[Message]) -> Iterator[Entries]:
        """Decode messages of items or users."""
        for start in range(0, len(messages), self._most):
            yield self._entries(partition, messages[start : start + self._most])
        kind, decode = (
            (Item, codec.decode_item) if partition.kind == "item" else (User, codec.decode_user)
        )
        self._unknown_fields[kind].sample(
            messages,
            lambda message: decode(message.value() or b"", _time(message), self._tolerance),
        )

    def _entries(self, partition: EntryPartition, messages: Sequence[Message]) -> Entries:
        kind = partition.kind
        decode = codec.decode_item if kind == "item" else codec.decode_user
        entries: list[Entry] = []
        letters: list[Record] = []
        for message in messages:
            broker_time, data = _time(message), message.value()
            try:
                check_record_time(broker_time)
                identifier = codec.decode_id(message.key())
                if kind == "user":
                    self._users.check(identifier, partition.number)
                value = None
                if data is not None:
                    entry = decode(data, broker_time, self._tolerance)
                    value = codec.encode_json(codec.require_key(entry, identifier))
            except BadEvent as bad:
                letters.append(_dead_letter(message, bad))
                continue
            place = Place(
                broker_time,
                message.partition(),
                message.offset(),
                partition.topic_id,
            )
            entries.append(Entry(kind, self._hasher(kind, identifier), identifier, place, value))
        return Entries(messages[-1].offset() + 1, entries, letters)


def _time(message: Message) -> float:
    """The broker's time in seconds since 1970."""
    return message.timestamp()[1] / 1000


def _dead_letter(message: Message, bad: BadEvent) -> Record:
    metrics.dead_letters.labels(bad.code).inc()
    _log.warning(
        "dead_letter",
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        code=bad.code,
        reason=str(bad),
    )
    return dead_letters.encode(LogMessage.of(message), bad)
