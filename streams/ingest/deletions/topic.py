"""Reads the topic of deletions from the position that Redis holds to its end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from core.deletions import KINDS, DeletionRecord, IdHasher, Kind, Place, decode_record
from core.errors import BadEvent, Stale
from core.settings import Settings
from store.log.reader import LogReader, Partition
from store.log.topics.ids import TopicId
from store.state import keys
from store.state.apply import deletions, halts
from store.state.connection import Client, named_errors
from streams.ingest.deletions.publisher import Publisher

_log = structlog.get_logger(__name__)

CHUNK = 500
"""Records in one transaction: some milliseconds of Redis."""


@dataclass
class Unread:
    """The records [first, next) of a partition of the topic of deletions, which Redis lacks, by
    their key.

    `unknown`: offset and record of each deletion that Redis does not know; `outdated`: records that
    an older release wrote.
    """

    partition: Partition
    first: int
    next: int
    unknown: dict[bytes, tuple[int, DeletionRecord]] = field(default_factory=dict)
    outdated: dict[bytes, DeletionRecord] = field(default_factory=dict)

    def add(
        self, key: bytes, offset: int, record: DeletionRecord | None, known: Place | None
    ) -> None:
        """Add the next record of the topic. None: the deletion of this key was dropped.

        `known`: the latest deletion of the id that Redis knows.
        """
        if record is None:
            self.unknown.pop(key, None)
            self.outdated.pop(key, None)
            return
        if record.identifier is not None:
            self.outdated[key] = record
        if not record.place.is_dead(known):
            self.unknown[key] = offset, record


class DeletionsTopic:
    """The topic of deletions, for one shard. Not thread-safe."""

    def __init__(
        self, settings: Settings, client: Client, reader: LogReader, publisher: Publisher
    ) -> None:
        """`client`: of the shard."""
        self._name, self._client, self._keys = settings.deletions_topic, client, keys.of(client)
        self._reader, self._publisher = reader, publisher
        self._hasher = IdHasher(settings.deletion_salt)

    def check(self, topic_id: TopicId) -> None:
        """Compare the topic's id with the one in Redis. A topic that was created anew gets every
        deletion that Redis holds, and is read from its beginning.
        """
        with named_errors("comparing the topic of deletions"):
            stored: Any = self._client.hget(self._keys.deletions, "topic_id")
            if topic_id is None or (stored is not None and stored.decode() == topic_id):
                return
            if stored is not None:
                _log.warning(
                    "deletions_topic_recreated",
                    topic=self._name,
                    former_topic_id=stored.decode(),
                    topic_id=topic_id,
                )
                self._restart()
            self._client.hset(self._keys.deletions, "topic_id", topic_id)

    def read(self) -> list[Unread]:
        """What Redis lacks of each partition. Raises Stale: start again."""
        return [self._read(partition) for partition in self._reader.partitions(self._name)]

    def _restart(self) -> None:
        """Publish every deletion that Redis holds, and let the topic be read from its beginning."""
        for kind in KINDS:
            self._publisher.publish(
                [(kind, digest, place) for digest, place in deletions.scan(self._client, kind)]
            )
        with named_errors("going back to the beginning of the topic of deletions"):
            fields: Any = self._client.hkeys(self._keys.deletions)
            positions = [field for field in fields if field.startswith(b"position:")]
            if positions:
                self._client.hdel(self._keys.deletions, *positions)

    def _read(self, partition: Partition) -> Unread:
        topic, number = partition
        halts.check(self._client, topic, number)
        with named_errors(f"reading the position of {topic}/{number}"):
            first = int(self._client.hget(self._keys.deletions, f"position:{number}") or 0)
        unread = Unread(partition, first, first)
        for messages in _chunks(self._reader.read({partition: (first, None)}), CHUNK):
            if messages[0].offset() < first:  # the broker lost the end of the topic
                _log.warning(
                    "deletions_topic_rewound",
                    topic=topic,
                    partition=number,
                    position=first,
                    offset=messages[0].offset(),
                )
                self._restart()
                raise Stale(0, f"{topic}/{number} was shortened below offset {first}")
            unread.next = messages[-1].offset() + 1
            records = [self._decode(message) for message in messages]
            known = self._known(records)
            for message, record in zip(messages, records, strict=True):
                if record is not None or message.value() is None:
                    place = None if record is None else known[record.kind, record.digest]
                    unread.add(message.key() or b"", message.offset(), record, place)
        return unread

    def _known(
        self, records: Sequence[DeletionRecord | None]
    ) -> dict[tuple[Kind, str], Place | None]:
        """By kind and hashed id: the latest deletion that Redis knows."""
        known: dict[tuple[Kind, str], Place | None] = {}
        for kind in KINDS:
            digests = [
                record.digest for record in records if record is not None and record.kind == kind
            ]
            places = deletions.lookup(self._client, kind, digests)
            known |= {(kind, digest): place for digest, place in zip(digests, places, strict=True)}
        return known

    def _decode(self, message: Any) -> DeletionRecord | None:
        """None: the record drops a deletion, cannot be read, or is of another shard."""
        value = message.value()
        if value is None:
            return None
        try:
            record = decode_record(message.key(), value, self._hasher)
        except BadEvent as error:
            _log.warning(
                "deletion_not_readable",
                topic=self._name,
                partition=message.partition(),
                offset=message.offset(),
                reason=str(error),
            )
            return None
        deletions.check_salt(record.salt, self._hasher)
        return record if record.may_be_in(self._keys.shard, self._keys.shards) else None


def _chunks(messages: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(messages, size)):
        yield chunk
