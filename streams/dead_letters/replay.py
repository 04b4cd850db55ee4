"""Replays dead letters: corrects each message, checks it, and sends it again to its own topic.

What was sent is recorded in the dead-letter topic afterwards. A crash between the two can replay a
letter once more; its event_id is then the same, so it still counts once within ingest's window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError

from core.contract import problems
from core.deletions import IdHasher
from core.errors import BadEvent, ConfigurationError
from core.settings import Settings
from store.dead_letters.corrections import Corrections
from store.dead_letters.letters import Coordinates, format_place, parse_place
from store.dead_letters.resend import (
    REPLAYED_FROM,
    corrected,
    ids_of,
    kind_of,
    refuse_deleted,
)
from store.log import dead_letters
from store.log.dead_letters import DeadLetter
from store.log.producer import DeliveryHandler, Headers, Producer
from store.state import connection
from streams.ingest.deletions import recovery

_log = structlog.get_logger(__name__)


def replay(
    settings: Settings,
    letters: Sequence[DeadLetter],
    corrections: Corrections,
    dry_run: bool = False,
) -> Counter[str]:
    """Correct, check and send letters; returns how many were `replayed` or refused, by code.

    A letter keeps its event_id; one without gets an id made of its coordinates. A letter that is
    older than the deletion of its user or item, or of the one that the corrected message names, is
    refused (`deleted`): sent again it would count as new.

    Raises LogUnavailable, StoreUnavailable (the deletions are in Redis).
    """
    deletion_check = _DeletionCheck(settings)
    counts: Counter[str] = Counter()
    sent: list[tuple[DeadLetter, str]] = []
    with Producer(settings, delivery_timeout_s=settings.kafka_timeout_s) as producer:
        for letter in letters:
            place = format_place(letter.coordinates)
            try:
                key, value = corrected(settings, letter, corrections)
                deletion_check.refuse_deleted(letter, key)
            except BadEvent as error:
                counts[error.code] += 1
                _log.warning("replay_refused", place=place, code=error.code, reason=str(error))
                continue
            counts["replayed"] += 1
            if not dry_run:
                headers: Headers = [(REPLAYED_FROM, place)]
                producer.raw(
                    letter.topic, key, value, headers=headers, on_delivery=_collect(sent, letter)
                )
        producer.flush()
        for letter, token in sent:
            record = dead_letters.encode_replay(letter, token)
            producer.raw(settings.dlq_topic, record.key, record.value, headers=record.headers)
    return counts


def read_edits(lines: Iterable[bytes]) -> dict[Coordinates, bytes]:
    """The new messages in JSON lines `{"place": "interactions:0:17", "value": {...}}`.

    Raises ConfigurationError with the line's number.
    """
    edits: dict[Coordinates, bytes] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                edit = msgspec.json.decode(line, type=_Edit)
                edits[parse_place(edit.place)] = bytes(edit.value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f'line {number} of the edits is not {{"place": '
                    f'"topic:partition:offset", "value": {{...}}}}: '
                    f"{problems.in_words(error, line, 'line')}"
                ) from None
    return edits


class _Edit(msgspec.Struct, frozen=True):
    """The new message for the dead letter at `place`."""

    place: str
    value: msgspec.Raw


class _DeletionCheck:
    """Refuses letters that are older than the deletion of their user or item."""

    def __init__(self, settings: Settings) -> None:
        """Brings Redis up to date with every deletion in the log first."""
        self._settings, self._client = settings, connection.connect(settings)
        self._hasher = IdHasher(settings.deletion_salt)
        recovery.recover(settings, self._client)

    def refuse_deleted(self, letter: DeadLetter, key: bytes) -> None:
        """`key`: the id that the corrected message names. Raises BadEvent (`deleted`)."""
        kind = kind_of(self._settings, letter)
        refuse_deleted(self._client, self._hasher, letter, kind, ids_of(letter, kind, key))


def _collect(sent: list[tuple[DeadLetter, str]], letter: DeadLetter) -> DeliveryHandler:
    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is None:
            token = f"{message.topic()}:{message.partition()}:{message.offset()}"
            sent.append((letter, token))

    return delivered
