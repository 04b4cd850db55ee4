"""Decides which records a deletion of a user or an item makes void, and hashes deleted ids.

A deletion is a record without a value in the topic `users` or `items`. Its `Place`, when and where
the record lies, is stored under the hash of the id. An interaction counts if and only if its broker
time is after the time of every deletion of its user. An older record of the same user or item is
dead, even when it is read again later or from another offset.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, NamedTuple

import msgspec
from pydantic import SecretStr

from core.contract import problems
from core.errors import BadEvent

Kind = Literal["user", "item"]
KINDS: tuple[Kind, ...] = ("user", "item")

_DIGEST_BYTES = 16
"""Bytes of a hashed id: two of a billion ids collide with a probability of 1e-21."""
_FINGERPRINT_BYTES = 4
"""Bytes that distinguish two salts and do not reveal them."""


class Place(NamedTuple):
    """When and where a record of `users` or `items` lies.

    `time`: the broker time in seconds. The other fields are None where an older release did not
    store them; `topic_id` also where the broker has none.
    """

    time: float
    partition: int | None = None
    offset: int | None = None
    topic_id: str | None = None

    def is_dead(self, deletion: Place | None) -> bool:
        """Whether the record at this place is not after `deletion`.

        Offsets decide within one partition, else the broker time.
        """
        if deletion is None:
            return False
        if (
            self.offset is None
            or deletion.offset is None
            or (self.partition, self.topic_id) != (deletion.partition, deletion.topic_id)
        ):
            return self.time <= deletion.time
        if self.topic_id is None:  # without an id, the topic may have been recreated
            return (self.time, self.offset) <= (deletion.time, deletion.offset)
        return self.offset <= deletion.offset

    def later(self, other: Place | None) -> Place:
        """The later of two deletions of the same id, with the later time of both.

        The times may be in another order than the offsets, when a broker's clock was set back.
        """
        if other is None:
            return self
        latest = other if self.is_dead(other) else self
        return latest._replace(time=max(self.time, other.time))

    def text(self) -> str:
        """As stored in Redis: time, partition, offset, topic id (`1764137342.5 2 1834 0Xq...`)."""
        return " ".join(
            [repr(self.time), *("-" if part is None else str(part) for part in self[1:])]
        )


def parse_place(text: bytes) -> Place:
    """Parse what `Place.text` wrote. Raises ValueError."""
    time, *rest = text.decode().split(" ")
    partition, offset, topic_id = (None if part == "-" else part for part in rest)
    return Place(
        float(time),
        None if partition is None else int(partition),
        None if offset is None else int(offset),
        topic_id,
    )


class IdHasher:
    """Hashes ids, with a salt, for the topic of deletions and for Redis."""

    def __init__(self, salt: SecretStr) -> None:
        """`salt`: DELETION_SALT.

        A hash reveals its id only to a reader who knows the salt and tries ids.
        """
        self._key = hashlib.blake2b(salt.get_secret_value().encode(), digest_size=32).digest()
        self.fingerprint = self._hash(b"fingerprint", b"", _FINGERPRINT_BYTES)

    def __call__(self, kind: Kind, identifier: str) -> str:
        """32 hexadecimal digits. About a microsecond."""
        return self._hash(kind.encode(), identifier.encode("utf-8", "surrogatepass"), _DIGEST_BYTES)

    def _hash(self, person: bytes, data: bytes, size: int) -> str:
        return hashlib.blake2b(data, key=self._key, person=person, digest_size=size).hexdigest()


class DeletionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the topic of deletions.

    `digest` is the hashed id; `identifier`, the id itself, is set by an older release only.
    `shard`: the shard of the user, of `shards`.
    """

    kind: Kind
    digest: str
    place: Place
    salt: str
    """The fingerprint of the salt that made `digest`."""
    identifier: str | None = None
    shard: int = 0
    shards: int = 1

    def may_be_in(self, shard: int, shards: int) -> bool:
        """Whether the deleted user may be in this shard, or the catalogue is in it.

        With another number of shards than when the record was written, a user may be in several.
        """
        if self.kind == "item":
            return shard == 0
        return (shard - self.shard) % math.gcd(shards, self.shards) == 0


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    kind: Kind
    time: float
    partition: int | None
    offset: int | None
    topic_id: str | None
    salt: str
    shard: int = 0
    shards: int = 1


_values = msgspec.json.Decoder(_Value)
_encode = msgspec.json.Encoder().encode


def record_key(kind: Kind, digest: str, place: Place) -> bytes:
    """The key of the record of a deletion.

    It contains the place, so that compaction keeps every deletion of an id: a process that was
    suspended may publish an earlier deletion last.
    """
    partition, offset = ("-" if part is None else part for part in (place.partition, place.offset))
    return f"{kind}:{digest}:{partition}:{offset}".encode()


def encode_record(record: DeletionRecord) -> tuple[bytes, bytes]:
    """Key and value of the record of a deletion."""
    value = _Value(
        kind=record.kind,
        salt=record.salt,
        shard=record.shard,
        shards=record.shards,
        **record.place._asdict(),
    )
    return record_key(record.kind, record.digest, record.place), _encode(value)


def decode_record(key: bytes | None, value: bytes, hasher: IdHasher) -> DeletionRecord:
    """Decode a record of the topic of deletions.

    An older release wrote the user id as the key and the time alone as the value. Raises BadEvent
    for a record of neither form.
    """
    text = (key or b"").decode("utf-8", "replace")
    try:
        try:
            time = float(value)
        except ValueError:
            fields = _values.decode(value)
            place = Place(fields.time, fields.partition, fields.offset, fields.topic_id)
            return DeletionRecord(
                kind=fields.kind,
                digest=text.split(":")[1],
                place=place,
                salt=fields.salt,
                shard=fields.shard,
                shards=max(1, fields.shards),
            )
        return DeletionRecord(
            kind="user",
            digest=hasher("user", text),
            place=Place(time),
            salt=hasher.fingerprint,
            identifier=text,
        )
    except (msgspec.DecodeError, IndexError) as error:
        text = problems.in_words(error, value, "record")
        raise BadEvent("not_json", f"the record is no deletion: {text}") from None
