"""Reads the dead-letter topic: which messages were refused, why, and which were replayed since.

A replay is recorded in the dead-letter topic itself (store/log/dead_letters.py), so that no letter
is replayed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.errors import BadEvent, ConfigurationError, LogUnavailable
from core.settings import Settings
from store.log import client as log
from store.log import dead_letters
from store.log.dead_letters import DeadLetter
from store.log.reader import LogReader

_GONE = (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)

_log = structlog.get_logger(__name__)

Coordinates = tuple[str, int, int]
"""Topic, partition and offset of a message that became a dead letter."""


class Selection(NamedTuple):
    """Which dead letters to list or to replay; an empty field selects all."""

    codes: Sequence[str] = ()
    topic: str | None = None
    coordinates: Sequence[Coordinates] = ()


ALL = Selection()


class DeadLetters(msgspec.Struct, frozen=True):
    """All letters by coordinates, oldest first, and the tokens of those that were replayed."""

    letters: Mapping[Coordinates, DeadLetter]
    replayed: Mapping[Coordinates, str]

    def select(self, selection: Selection = ALL) -> list[DeadLetter]:
        """The selected letters that are not replayed yet."""
        codes, topic = selection.codes, selection.topic
        places = set(selection.coordinates)
        return [
            letter
            for coordinates, letter in self.letters.items()
            if coordinates not in self.replayed
            and (not codes or letter.code in codes)
            and topic in (None, letter.topic)
            and (not places or coordinates in places)
        ]


def read(settings: Settings) -> DeadLetters:
    """The whole dead-letter topic; a letter that a crashed ingest wrote twice counts once.

    Raises LogUnavailable.
    """
    letters: dict[Coordinates, DeadLetter] = {}
    replayed: dict[Coordinates, str] = {}
    foreign = 0
    for message in _messages(settings):
        headers = message.headers()
        replay = dead_letters.decode_replay(headers)
        if replay is not None:
            coordinates, token = replay
            replayed[coordinates] = token
            continue
        try:
            letter = dead_letters.decode(message.key(), message.value(), headers)
        except BadEvent:
            foreign += 1
            continue
        letters.setdefault(letter.coordinates, letter)
    if foreign:
        _log.warning("foreign_records_skipped", topic=settings.dlq_topic, count=foreign)
    oldest_first = sorted(letters.items(), key=lambda entry: (entry[1].broker_time, entry[0]))
    return DeadLetters(dict(oldest_first), replayed)


def find(settings: Settings, coordinates: Coordinates) -> DeadLetter | None:
    """The dead letter of the message at `coordinates`, or None.

    Decodes no other letter and stops reading at this one. Raises LogUnavailable.
    """
    topic, partition, offset = coordinates
    expected = {
        "topic": topic.encode(),
        "partition": str(partition).encode(),
        "offset": str(offset).encode(),
    }
    for message in _messages(settings):
        headers = message.headers()
        if (
            headers
            and expected.items() <= dict(headers).items()
            and dead_letters.decode_replay(headers) is None
        ):
            with suppress(BadEvent):  # a record that Eddyline did not write
                return dead_letters.decode(message.key(), message.value(), headers)
    return None


def original(settings: Settings, letter: DeadLetter) -> bytes | None:
    """The whole value of the original message.

    It is read again from its topic when the letter holds only its first bytes. Raises BadEvent
    (`gone`) when the log does not hold it any more, LogUnavailable.
    """
    if not letter.truncated:
        return letter.value
    place = format_place(letter.coordinates)
    consumer = Consumer(
        log.consumer_config(settings, f"{settings.ingest_group}-dlq")
        | {"enable.partition.eof": True}
    )
    try:
        consumer.assign([TopicPartition(*letter.coordinates)])
        message: Any = consumer.poll(settings.kafka_timeout_s)
        if message is not None and message.error() is None and message.offset() == letter.offset:
            value: bytes | None = message.value()
            return value
        if message is None:
            raise LogUnavailable(
                f"no answer within {settings.kafka_timeout_s:g} s while reading {place} again"
            )
        if message.error() is not None and message.error().code() not in _GONE:
            raise log.unreachable(
                settings, f"reading {place} again", KafkaException(message.error())
            )
        raise BadEvent("gone", f"the log does not hold {place} any more, and the copy is truncated")
    finally:
        consumer.close()


def parse_place(text: str) -> Coordinates:
    """The coordinates that `topic:partition:offset` names. Raises ConfigurationError."""
    topic, _, rest = text.partition(":") if text.count(":") == 2 else ("", "", "")
    partition, _, offset = rest.partition(":")
    if not topic or not partition.isdigit() or not offset.isdigit():
        raise ConfigurationError(
            f"{text!r} is not of the form topic:partition:offset, such as interactions:0:182734"
        )
    return topic, int(partition), int(offset)


def format_place(coordinates: Coordinates) -> str:
    """The coordinates as `topic:partition:offset`."""
    return ":".join(map(str, coordinates))


def _messages(settings: Settings) -> Iterator[Any]:
    """Every record of the dead-letter topic up to its end as it is now."""
    log.ensure_topics(settings, [settings.dlq_topic])
    with LogReader(settings, "dlq") as reader:
        yield from reader.read_topic(settings.dlq_topic)
