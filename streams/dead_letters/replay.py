"""Replays dead letters: corrects each message, checks it, and sends it again to its own topic.

What was sent is recorded in the dead-letter topic afterwards. A crash between the two can replay a
letter once more; its event_id is then the same, so it still counts once within ingest's window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from confluent_kafka import KafkaError

from core.contract import problems
from core.deletions import IdHasher
from core.errors import BadEvent, ConfigurationError, RefusedAgain
from core.settings import Settings
from store.dead_letters.corrections import Corrections
from store.dead_letters.letters import Coordinates, format_place, parse_place
from store.dead_letters.resend import (
    REPLAYED_FROM,
    check_accepted,
    corrected,
    ids_of,
    kind_of,
    refuse_deleted,
)
from store.log import dead_letters
from store.log.dead_letters import DeadLetter
from store.log.producer import DeliveryHandler, Headers, Producer
from store.state import running
from store.state.shards import Shards
from streams.ingest.deletions import recovery

_log = structlog.get_logger(__name__)


class Sending(NamedTuple):
    """How letters are sent again. `dry_run`: only count them. `force`: also what the running ingest
    would refuse again.
    """

    dry_run: bool = False
    force: bool = False


SEND = Sending()


def replay(
    settings: Settings,
    letters: Sequence[DeadLetter],
    corrections: Corrections,
    sending: Sending = SEND,
) -> Counter[str]:
    """Correct, check and send letters; returns how many were `replayed` or refused, by code.

    A letter keeps its event_id; one without gets an id made of its coordinates. A letter that is
    older than the deletion of its user or item, or of the one that the corrected message names, is
    refused (`deleted`): sent again it would count as new.

    Raises LogUnavailable, StoreUnavailable (the deletions are in Redis). Raises RefusedAgain before
    anything is sent: the running ingest would refuse some of the letters again.
    """
    counts: Counter[str] = Counter()
    messages = _checked(settings, letters, corrections, sending, counts)
    if sending.dry_run:
        return counts
    sent: list[tuple[DeadLetter, str]] = []
    with Producer(settings, delivery_timeout_s=settings.kafka_timeout_s) as producer:
        for letter, key, value in messages:
            headers: Headers = [(REPLAYED_FROM, format_place(letter.coordinates))]
            producer.raw(
                letter.topic, key, value, headers=headers, on_delivery=_collect(sent, letter)
            )
        producer.flush()
        for letter, token in sent:
            record = dead_letters.encode_replay(letter, token)
            producer.raw(settings.dlq_topic, record.key, record.value, headers=record.headers)
    return counts


def _checked(
    settings: Settings,
    letters: Sequence[DeadLetter],
    corrections: Corrections,
    sending: Sending,
    counts: Counter[str],
) -> list[tuple[DeadLetter, bytes, bytes]]:
    """The letters to send, with key and value of each message. Raises RefusedAgain."""
    deletion_check = _DeletionCheck(settings)
    accepted = running.accepted(deletion_check.shards.first)
    messages: list[tuple[DeadLetter, bytes, bytes]] = []
    again: Counter[str] = Counter()
    for letter in letters:
        try:
            key, value = corrected(settings, letter, corrections)
            deletion_check.refuse_deleted(letter, key)
        except BadEvent as error:
            counts[error.code] += 1
            _log_refusal(letter, error)
            continue
        try:
            check_accepted(settings, accepted, letter, value)
        except BadEvent as error:
            again[error.code] += 1
            _log_refusal(letter, error)
            if not sending.force:
                continue
        counts["replayed"] += 1
        messages.append((letter, key, value))
    if again and not sending.force:
        if not sending.dry_run:
            raise RefusedAgain(
                f"the running ingest would refuse {again.total()} of {len(letters)} letters again "
                f"({', '.join(f'{count} {code}' for code, count in again.most_common())}): it was "
                f"started with other event types or use cases than this command; nothing was "
                f"sent. Start ingest again with the same USE_CASES_PATH, or give --force"
            )
        counts.update({f"{code}, by the running ingest": n for code, n in again.items()})
    return messages


def _log_refusal(letter: DeadLetter, error: BadEvent) -> None:
    place = format_place(letter.coordinates)
    _log.warning("replay_refused", place=place, code=error.code, reason=str(error))


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
        self._settings, self.shards = settings, Shards(settings)
        self._hasher = IdHasher(settings.deletion_salt)
        recovery.recover(settings, self.shards)

    def refuse_deleted(self, letter: DeadLetter, key: bytes) -> None:
        """`key`: the id that the corrected message names. Raises BadEvent (`deleted`)."""
        kind = kind_of(self._settings, letter)
        for entity_id in ids_of(letter, kind, key):
            client = self.shards.first if kind == "item" else self.shards.of_user(entity_id)
            refuse_deleted(client, self._hasher, letter, kind, [entity_id])


def _collect(sent: list[tuple[DeadLetter, str]], letter: DeadLetter) -> DeliveryHandler:
    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is None:
            token = f"{message.topic()}:{message.partition()}:{message.offset()}"
            sent.append((letter, token))

    return delivered
