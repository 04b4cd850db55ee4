"""Dead letters: what they are, and sending them again after a fix.

What was replayed is noted in the dead-letter topic itself (store/log/dead_letters.py), so that
nothing is replayed twice. A crash between the event and its note can replay it once more; its
event_id is then the same, so it still counts once within ingest's window.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core import codec
from core.deletions import IdHasher, Kind
from core.errors import BadEvent, ConfigurationError, LogUnavailable
from core.settings import Settings
from store.log import client as log
from store.log import dead_letters
from store.log.dead_letters import DeadLetter
from store.log.producer import Delivered, Headers, Producer
from store.state import connection
from store.state.apply import deletions as known_deletions
from streams.ingest.deletions import recovery

_log = structlog.get_logger(__name__)

REPLAYED_FROM = "replayed_from"
"""Header of a replayed event: the coordinates of the message that it mends."""

Coordinates = tuple[str, int, int]


class Dead(msgspec.Struct, frozen=True):
    """The dead letters of a topic by coordinates, oldest first, and the tokens of those that were
    replayed.
    """

    letters: Mapping[Coordinates, DeadLetter]
    replayed: Mapping[Coordinates, str]

    def select(
        self,
        codes: Sequence[str] = (),
        topic: str | None = None,
        places: Iterable[Coordinates] = (),
    ) -> list[DeadLetter]:
        """Those that are not replayed yet, of these codes, from this topic, at these places;
        nothing given means all.
        """
        wanted = set(places)
        return [
            letter
            for place, letter in self.letters.items()
            if place not in self.replayed
            and (not codes or letter.code in codes)
            and topic in (None, letter.topic)
            and (not wanted or place in wanted)
        ]


def read(settings: Settings) -> Dead:
    """Everything in the dead-letter topic; a letter that a crashed ingest wrote twice is one.

    Raises LogUnavailable.
    """
    letters: dict[Coordinates, DeadLetter] = {}
    replayed: dict[Coordinates, str] = {}
    foreign = 0
    for message in _all_messages(settings, settings.dlq_topic):
        headers = message.headers()
        note = dead_letters.replayed(headers)
        if note is not None:
            replayed[note[0]] = note[1]
            continue
        try:
            letter = dead_letters.decode(message.key(), message.value(), headers)
        except BadEvent:
            foreign += 1
            continue
        letters.setdefault(letter.coordinates, letter)
    if foreign:
        _log.warning(
            "records that are no dead letters of Eddyline", topic=settings.dlq_topic, count=foreign
        )
    return Dead(
        dict(sorted(letters.items(), key=lambda entry: (entry[1].broker_time, entry[0]))), replayed
    )


def find(settings: Settings, place: Coordinates) -> DeadLetter | None:
    """The dead letter of the message at `place`, or None; decodes no other and reads no further
    than it. Raises LogUnavailable.
    """
    wanted = {
        "topic": place[0].encode(),
        "partition": str(place[1]).encode(),
        "offset": str(place[2]).encode(),
    }
    for message in _all_messages(settings, settings.dlq_topic):
        headers = message.headers()
        if (
            headers
            and wanted.items() <= dict(headers).items()
            and dead_letters.replayed(headers) is None
        ):
            with suppress(BadEvent):  # a record that is no dead letter of Eddyline
                return dead_letters.decode(message.key(), message.value(), headers)
    return None


def parse_place(text: str) -> Coordinates:
    """`topic:partition:offset` as coordinates. Raises ConfigurationError."""
    topic, _, rest = text.partition(":") if text.count(":") == 2 else ("", "", "")
    partition, _, offset = rest.partition(":")
    if not topic or not partition.isdigit() or not offset.isdigit():
        raise ConfigurationError(
            f"{text!r} is not of the form topic:partition:offset, such as interactions:0:182734"
        )
    return topic, int(partition), int(offset)


def original(settings: Settings, letter: DeadLetter) -> bytes | None:
    """The whole original: the letter's copy, or the message at its coordinates when the copy was
    cut.

    Raises BadEvent (`gone`) when the log does not hold it any more, LogUnavailable.
    """
    if not letter.truncated:
        return letter.value
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
                f"no answer within {settings.kafka_timeout_s:g} s while reading "
                f"{_shown(letter.coordinates)} again"
            )
        raise BadEvent(
            "gone",
            f"the log does not hold {_shown(letter.coordinates)} any more, and the copy was cut",
        )
    finally:
        consumer.close()


def replay(
    settings: Settings,
    letters: Sequence[DeadLetter],
    fix: Mapping[str, Any],
    edits: Mapping[Coordinates, bytes],
    dry_run: bool = False,
) -> Counter[str]:
    """Mend, check and send again. Answers counts: `replayed`, and by code what is still no event.

    `fix`: field -> JSON value, set in every letter that is a JSON object; `edits`: coordinates ->
    the whole new message. A letter's event_id is kept; where it has none, it becomes one made of
    the coordinates. A letter from before the deletion of its user or item, or of the one that the
    mended message names, is refused (`deleted`): sent again it would count as new.

    Raises LogUnavailable, StoreUnavailable: without Redis nobody knows who was deleted.
    """
    refusal = _Refusal(settings)
    counts: Counter[str] = Counter()
    tokens: list[tuple[DeadLetter, str]] = []
    with Producer(settings, delivery_timeout_s=settings.kafka_timeout_s) as producer:
        for letter in letters:
            try:
                key, value = _mended(settings, letter, fix, edits.get(letter.coordinates))
                refusal.check(letter, key)
            except BadEvent as error:
                counts[error.code] += 1
                _log.warning(
                    "still no event",
                    place=_shown(letter.coordinates),
                    code=error.code,
                    reason=str(error),
                )
                continue
            counts["replayed"] += 1
            if not dry_run:
                headers: Headers = [(REPLAYED_FROM, _shown(letter.coordinates))]
                producer.raw(
                    letter.topic, key, value, headers=headers, on_delivery=_collect(tokens, letter)
                )
        producer.flush()
        for letter, token in tokens:
            record = dead_letters.note(letter, token)
            producer.raw(settings.dlq_topic, record.key, record.value, headers=record.headers)
    return counts


class _Refusal:
    """Refuses letters that are older than the deletion of whom they are about."""

    def __init__(self, settings: Settings) -> None:
        """Redis is first brought up to date with every deletion in the log."""
        self._settings, self._client = settings, connection.connect(settings)
        self._hasher = IdHasher(settings.deletion_salt)
        recovery.recover(settings, self._client)

    def check(self, letter: DeadLetter, key: bytes) -> None:
        """`key`: the id that the mended message names. Raises BadEvent (`deleted`)."""
        kind: Kind = "item" if letter.topic == self._settings.items_topic else "user"
        names = dict.fromkeys([key.decode(), *self._named(letter)])
        places = known_deletions.lookup(
            self._client, kind, [self._hasher(kind, name) for name in names]
        )
        for place in places:
            if place is not None and letter.broker_time <= place.time:
                when = datetime.fromtimestamp(place.time, UTC).isoformat(timespec="seconds")
                raise BadEvent(
                    "deleted",
                    (
                        f"its {kind} was deleted at {when}, after the message: sent again it "
                        f"would count as new"
                    ),
                )

    def _named(self, letter: DeadLetter) -> list[str]:
        """The ids that the letter itself names: by its key and in its value."""
        named = []
        with suppress(BadEvent):  # a key may name nobody
            named.append(codec.decode_id(letter.key))
        field = "item_id" if letter.topic == self._settings.items_topic else "user_id"
        try:
            fields = msgspec.json.decode(letter.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return named
        value = fields.get(field) if isinstance(fields, dict) else None
        return [*named, value] if isinstance(value, str) else named


def read_edits(lines: Iterable[bytes]) -> dict[Coordinates, bytes]:
    """JSON lines `{"place": "interactions:0:17", "value": {...}}`.

    Raises ConfigurationError with the line's number.
    """
    edits: dict[Coordinates, bytes] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                entry = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                edits[parse_place(msgspec.json.decode(entry["place"], type=str))] = bytes(
                    entry["value"]
                )
            except (msgspec.DecodeError, KeyError) as error:
                raise ConfigurationError(
                    f'line {number} of the edits is not {{"place": '
                    f'"topic:partition:offset", "value": {{...}}}}: {error}'
                ) from None
    return edits


def _mended(
    settings: Settings, letter: DeadLetter, fix: Mapping[str, Any], edit: bytes | None
) -> tuple[bytes, bytes]:
    """Key and value to send. Raises BadEvent."""
    value = edit if edit is not None else original(settings, letter)
    if letter.topic != settings.interactions_topic:
        value = _with(value or b"", fix, {})
        if letter.topic == settings.items_topic:
            return codec.decode_item(value).item_id.encode(), value
        return codec.decode_user(value).user_id.encode(), value
    value = _with(value or b"", fix, {"event_id": f"replay:{_shown(letter.coordinates)}"})
    return codec.decode_interaction(value, time.time(), settings.use_cases).user_id.encode(), value


def _with(value: bytes, fix: Mapping[str, Any], defaults: Mapping[str, Any]) -> bytes:
    """`value` with the fields of `fix`, and with `defaults` where it has none; what is no JSON
    object stays as it is.
    """
    try:
        fields = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return value
    return codec.encode_json({**defaults, **fields, **fix}) if isinstance(fields, dict) else value


def _collect(tokens: list[tuple[DeadLetter, str]], letter: DeadLetter) -> Delivered:
    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is None:
            tokens.append((letter, f"{message.topic()}:{message.partition()}:{message.offset()}"))

    return delivered


def _all_messages(settings: Settings, topic: str) -> Iterable[Any]:
    """Every message of `topic`, from the log's beginning to its end as it is now."""
    log.ensure_topics(settings)
    config = log.consumer_config(settings, f"{settings.ingest_group}-dlq") | {
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(config)
    try:
        partitions = (
            consumer.list_topics(topic, timeout=settings.kafka_timeout_s).topics[topic].partitions
        )
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        unfinished, quiet_since = set(partitions), time.monotonic()
        while unfinished:
            messages = consumer.consume(1000, 0.2)
            if messages:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > settings.kafka_timeout_s:
                raise LogUnavailable(
                    f"Kafka at {settings.kafka_bootstrap_servers} did not answer while "
                    f"reading {topic}"
                )
            for message in messages:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
    except KafkaException as error:
        raise log.unreachable(settings, f"reading {topic}", error) from error
    finally:
        consumer.close()


def _shown(place: Coordinates) -> str:
    return ":".join(map(str, place))
