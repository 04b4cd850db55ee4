"""Encodes and decodes the records of the dead-letter topic: messages that are no valid event.

Key: the original key. Value: the original bytes, or their first TRUNCATED_BYTES when they are more
than MAX_COPY_BYTES (the original is still in the source topic, at the coordinates in the headers).
A dead letter made from the archive has no key, and only the bytes that the archive has. Headers,
all text: topic, partition, offset, code, reason, truncated, broker_time (seconds since 1970), and
size, the original's length in bytes.

A replayed dead letter gets a note: a second record in the same topic with the same coordinates, no
value, and the header replayed_to (the token of the message that was sent). So the letters that are
not replayed yet follow from the topic alone.

The coordinates identify a dead letter: a crashed ingest may write the same one twice, and readers
count it once.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.errors import BadEvent
from store.log.message import LogMessage

MAX_COPY_BYTES = 512 * 1024
"""Largest original that is copied whole: half of Kafka's default limit of 1 MiB for a record, so
that key and headers fit too.
"""
TRUNCATED_BYTES = 64 * 1024
"""Bytes copied of a larger original."""
MAX_REASON_CHARS = 1000
MAX_KEY_BYTES = 4096
"""Bytes copied of the original key; a longer one is no user id."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One message that is no valid event, and why.

    `size` is the original's length in bytes; `value` may be shorter.
    """

    topic: str
    partition: int
    offset: int
    code: str
    reason: str
    broker_time: float
    size: int
    truncated: bool
    key: bytes | None
    value: bytes | None

    @property
    def coordinates(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the original: the identity of a dead letter."""
        return self.topic, self.partition, self.offset


class Record(msgspec.Struct, frozen=True):
    """What a Kafka producer sends."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]


def encode(message: LogMessage, error: BadEvent, *, truncated: bool = False) -> Record:
    """The dead-letter record of a message that was refused with `error`.

    `truncated`: the message's value is only its first bytes, so `size` is a lower bound.
    """
    key, value = message.key, message.value
    size = len(value or b"")
    truncated = truncated or size > MAX_COPY_BYTES
    headers: list[tuple[str, str | bytes | None]] = [
        ("topic", message.topic),
        ("partition", str(message.partition)),
        ("offset", str(message.offset)),
        ("code", error.code),
        ("reason", str(error)[:MAX_REASON_CHARS].encode("utf-8", "replace")),
        ("truncated", "true" if truncated else "false"),
        ("broker_time", repr(message.broker_time)),
        ("size", str(size)),
    ]
    return Record(
        key[:MAX_KEY_BYTES] if key else key,
        value[:TRUNCATED_BYTES] if value and truncated else value,
        headers,
    )


def encode_replay(letter: DeadLetter, token: str) -> Record:
    """The record that marks a dead letter as replayed.

    `token`: topic:partition:offset of the message that was sent.
    """
    place = [
        ("topic", letter.topic),
        ("partition", str(letter.partition)),
        ("offset", str(letter.offset)),
    ]
    return Record(letter.key, None, [*place, ("replayed_to", token)])


def decode_replay(
    headers: Iterable[tuple[str, bytes | None]] | None,
) -> tuple[tuple[str, int, int], str] | None:
    """Coordinates and token, if these are the headers of a note of a replay; else None."""
    texts = {name: (content or b"").decode("utf-8", "replace") for name, content in headers or ()}
    if "replayed_to" not in texts:
        return None
    return (texts["topic"], int(texts["partition"]), int(texts["offset"])), texts["replayed_to"]


def decode(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None
) -> DeadLetter:
    """The dead letter of a record. Raises BadEvent when Eddyline did not write it."""
    texts = {name: (content or b"").decode("utf-8", "replace") for name, content in headers or ()}
    try:
        return DeadLetter(
            topic=texts["topic"],
            partition=int(texts["partition"]),
            offset=int(texts["offset"]),
            code=texts["code"],
            reason=texts["reason"],
            broker_time=float(texts["broker_time"]),
            size=int(texts["size"]),
            truncated=texts["truncated"] == "true",
            key=key,
            value=value,
        )
    except KeyError as error:
        raise BadEvent(
            "bad_header", f"the record has no header {error}; it is not a dead letter of Eddyline"
        ) from None
    except ValueError as error:
        raise BadEvent("bad_header", f"a header of the record is not a number: {error}") from None
