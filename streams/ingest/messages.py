"""Decodes the messages of a partition (steps 2 and 3 of `streams.ingest.loop`): valid ones become
events or entries, the others dead letters.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import compress
from operator import not_
from typing import NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaError

from core import codec
from core.contract.times import check_record_time, is_plausible
from core.deletions import IdHasher, Place
from core.errors import BadEvent
from core.settings import Settings
from core.types import Interaction, Item, User
from core.usual_events import UsualEvents
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


class _Valid(NamedTuple):
    """Valid interactions as columns, in offset order; `broker_times` in seconds since 1970."""

    offsets: list[int]
    interactions: list[Interaction]
    broker_times: list[float]


class Decoder:
    """Decodes messages; at most `transaction_events` of them make one answer."""

    def __init__(self, settings: Settings) -> None:
        self._use_cases, self._most = settings.use_cases, settings.transaction_events
        self._tolerance = settings.tolerance
        self._hasher = IdHasher(settings.deletion_salt)
        self._users = UserCheck(settings.redis_shards)
        self._usual_events = UsualEvents(settings.use_cases)
        self._unknown_fields = {kind: UnknownFields(kind) for kind in (Interaction, Item, User)}

    def interactions(
        self, partition: InteractionPartition, messages: Sequence[Message]
    ) -> Iterator[Interactions]:
        """Decode `messages`, which follow those that the partition has read.

        Plan each answer before the next one is taken: the partition's popularity then holds the
        events of this answer, and none after it.
        """
        end, newest = messages[-1].offset() + 1, _time(messages[-1])
        for first in range(0, len(messages), self._most):
            part = messages[first : first + self._most]
            valid, letters = self._valid(partition, part)
            events = self._take(partition, valid)
            next_ = part[-1].offset() + 1
            if next_ > partition.start:
                yield Interactions(next_, events, letters)
        if end > partition.start:
            decode = partial(
                codec.decode_interaction, use_cases=self._use_cases, tolerance=self._tolerance
            )
            self._unknown_fields[Interaction].sample(
                messages, lambda message: decode(message.value(), _time(message))
            )
        if is_plausible(newest):
            labels = partition.topic, partition.number
            metrics.lag_seconds.labels(*labels).set(max(0.0, time.time() - newest))

    def _valid(
        self, partition: InteractionPartition, messages: Sequence[Message]
    ) -> tuple[_Valid, list[Record]]:
        """The valid interactions in `messages`; the others as dead letters, from `start` on."""
        offsets = [message.offset() for message in messages]
        times = [message.timestamp()[1] / 1000 for message in messages]  # as _time, without a call
        values = [message.value() for message in messages]
        interactions = self._usual_events.decode(values, times)
        if interactions is not None and self._users.accepts(
            (interaction.user_id for interaction in interactions), partition.number
        ):
            return _Valid(offsets, interactions, times), []
        valid = _Valid([], [], [])
        letters: list[Record] = []
        for message, offset, broker_time, value in zip(
            messages, offsets, times, values, strict=True
        ):
            try:
                interaction = codec.decode_interaction(
                    value, broker_time, self._use_cases, self._tolerance
                )
                self._users.check(interaction.user_id, partition.number)
            except BadEvent as bad:
                if offset >= partition.start:
                    letters.append(_dead_letter(message, bad))
                continue
            valid.offsets.append(offset)
            valid.interactions.append(interaction)
            valid.broker_times.append(broker_time)
        return valid, letters

    def _take(self, partition: InteractionPartition, valid: _Valid) -> list[Event]:
        """Add interactions to the partition's duplicate window, and those that are no duplicates to
        its popularity; the latter, from `start` on.
        """
        offsets, interactions, times = valid
        if not offsets:
            return []
        start, dedup = partition.start, partition.dedup
        if not dedup.take_new([interaction.event_id for interaction in interactions], offsets):
            are_new = [
                not dedup.is_duplicate(interaction.event_id, offset)
                for offset, interaction in zip(offsets, interactions, strict=True)
            ]
            duplicates = compress(offsets, map(not_, are_new))
            metrics.duplicates.inc(sum(offset >= start for offset in duplicates))
            offsets = list(compress(offsets, are_new))
            interactions = list(compress(interactions, are_new))
            times = list(compress(times, are_new))
        partition.popularity.add_all(offsets, interactions, times)
        first = bisect_left(offsets, start)
        return list(map(Event, interactions[first:], times[first:]))

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
