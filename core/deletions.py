"""Deletions of users and items: the hash that stands for an id, and which records a deletion
outdates. Pure, no I/O.

A deletion is a record without a value in the topic `users` or `items`. What is kept of it is a
`Place`: when and where that record lies. An interaction counts if and only if its broker time is
after the time of every deletion of its user. An older record of the same user or item is dead,
whenever and from whatever offset it is read again.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import msgspec
from pydantic import SecretStr

from core.errors import BadEvent

Kind = Literal["user", "item"]
KINDS: tuple[Kind, ...] = ("user", "item")

_DIGEST_BYTES = 16
"""Bytes of a hashed id: two of a billion ids share one with a probability of 1e-21."""
_FINGERPRINT_BYTES = 4
"""Bytes that tell two salts apart, and tell nothing about either."""


class Place(NamedTuple):
    """When (broker time, seconds) and where a record of `users` or `items` lies; None: not known,
    in notes of an older release.
    """

    time: float
    partition: int | None = None
    offset: int | None = None
    topic_id: str | None = None

    def is_dead(self, deletion: Place | None) -> bool:
        """Whether the record here is not after `deletion`.

        The log's order decides where both lie in it, else the broker's time.
        """
        if deletion is None:
            return False
        if (
            self.offset is None
            or deletion.offset is None
            or (self.partition, self.topic_id) != (deletion.partition, deletion.topic_id)
        ):
            return self.time <= deletion.time
        if self.topic_id is None:  # a broker that tells no ids: the topic may be another one by now
            return (self.time, self.offset) <= (deletion.time, deletion.offset)
        return self.offset <= deletion.offset

    def later(self, other: Place | None) -> Place:
        """The later of two deletions of the same id, with the later time of the two: a broker's
        clock may have been set back.
        """
        if other is None:
            return self
        latest = other if self.is_dead(other) else self
        return latest._replace(time=max(self.time, other.time))

    def text(self) -> str:
        """`1764137342.5 2 1834 0Xq...`: time, partition, offset, topic id, as it stands in
        Redis.
        """
        return " ".join(
            [repr(self.time), *("-" if part is None else str(part) for part in self[1:])]
        )


def parse_place(text: bytes) -> Place:
    """The place in what `Place.text` wrote. Raises ValueError."""
    time, *rest = text.decode().split(" ")
    partition, offset, topic_id = (None if part == "-" else part for part in rest)
    return Place(
        float(time),
        None if partition is None else int(partition),
        None if offset is None else int(offset),
        topic_id,
    )


class IdHasher:
    """The salted hash that stands for an id in the topic of deletions and in Redis."""

    def __init__(self, salt: SecretStr) -> None:
        """`salt`: DELETION_SALT.

        Without it, or with another one, nobody can tell which id a hash stands for but by trying
        ids.
        """
        self._key = hashlib.blake2b(salt.get_secret_value().encode(), digest_size=32).digest()
        self.fingerprint = self._hash(b"fingerprint", b"", _FINGERPRINT_BYTES)

    def __call__(self, kind: Kind, identifier: str) -> str:
        """32 hexadecimal digits. About a microsecond."""
        return self._hash(kind.encode(), identifier.encode("utf-8", "surrogatepass"), _DIGEST_BYTES)

    def _hash(self, person: bytes, data: bytes, size: int) -> str:
        return hashlib.blake2b(data, key=self._key, person=person, digest_size=size).hexdigest()


class DeletionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the topic of deletions.

    `digest` stands for the id; `identifier` is set in a record of an older release only.
    """

    kind: Kind
    digest: str
    place: Place
    salt: str
    identifier: str | None = None


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    time: float
    partition: int | None
    offset: int | None
    topic_id: str | None
    salt: str


_values = msgspec.json.Decoder(_Value)
_encode = msgspec.json.Encoder().encode


def record_key(kind: Kind, digest: str, place: Place) -> bytes:
    """The key of a deletion's record. The place is part of it, so that compaction keeps every
    deletion of an id, in whatever order they are published: a process that was frozen may publish
    an earlier one last.
    """
    partition, offset = ("-" if part is None else part for part in (place.partition, place.offset))
    return f"{kind}:{digest}:{partition}:{offset}".encode()


def encode_record(kind: Kind, digest: str, place: Place, salt: str) -> tuple[bytes, bytes]:
    """Key and value of a deletion's record.

    `salt`: the fingerprint of the salt that made `digest`.
    """
    return record_key(kind, digest, place), _encode(_Value(kind=kind, salt=salt, **place._asdict()))


def decode_record(key: bytes | None, value: bytes, hasher: IdHasher) -> DeletionRecord:
    """Read a record of the topic of deletions. An older release wrote the user id as key and the
    time alone as value.

    Raises BadEvent when it is neither.
    """
    text = (key or b"").decode("utf-8", "replace")
    try:
        try:
            time = float(value)
        except ValueError:
            found = _values.decode(value)
            place = Place(found.time, found.partition, found.offset, found.topic_id)
            return DeletionRecord(
                kind=found.kind, digest=text.split(":")[1], place=place, salt=found.salt
            )
        return DeletionRecord(
            kind="user",
            digest=hasher("user", text),
            place=Place(time),
            salt=hasher.fingerprint,
            identifier=text,
        )
    except (msgspec.DecodeError, IndexError) as error:
        raise BadEvent("not_json", f"the record is no deletion: {error}") from None
