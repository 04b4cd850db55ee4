"""Deletions of users and items, from the log into Redis, before anything older than them is
applied.

The topics `users` and `items` are compacted: once a deleted user comes back, or some time after a
deletion, its record is gone from them. So ingest writes each deletion to a topic of its own, before
it applies it. Redis holds that topic up to a position of its own, beside what the deletions did
(store.state.apply.deletions), so that a Redis that is new, was emptied or was set back at any
moment is brought up to date by `recover`, in these steps:

1. The salt of the hashes is compared, and notes of an older release are rewritten.
2. Deletions in `users` and `items` that ingest has not reached yet are published: events must not
   be counted and taken back again.
3. The topic of deletions is read from Redis' position to its end.
4. A deletion that Redis does not know is applied as ingest applies it
   (store.state.apply.entry_applier).
   The topic holds hashes, so the ids are those met in step 2; for the others every id in Redis is
   hashed, and nobody applies anything meanwhile.
5. Redis is ready.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from core import codec
from core.deletions import (
    KINDS,
    DeletionRecord,
    IdHasher,
    Kind,
    Place,
    decode_record,
    encode_record,
)
from core.errors import BadEvent, Stale, StoreUnavailable
from core.settings import Settings
from store.log.producer import Producer
from store.log.reader import LogReader, Partition
from store.log.topics.ids import TopicId, TopicIds
from store.state import connection, keys
from store.state.apply import deletions, halts, positions
from store.state.apply.batches import OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from store.state.connection import Client, named_errors
from store.state.entities import experiments
from streams.ingest.deletions.later_events import LaterEvents

_log = structlog.get_logger(__name__)

_CHUNK = 500
"""Records in one transaction: some milliseconds of Redis."""
_TRIES = 20
"""Times that a recovery starts again because Redis was emptied, or another process recovers the
same.
"""

Published = Sequence[tuple[Kind, str, Place]]
_Names = dict[tuple[Kind, str], str]
"""Kind and hashed id -> the id."""


class Publisher:
    """Publishes deletions to their topic, and waits until they are acknowledged.

    Connects on first use. Not thread-safe.
    """

    def __init__(self, settings: Settings, hasher: IdHasher) -> None:
        self._settings, self._hasher = settings, hasher
        self._producer: Producer | None = None

    def publish(self, found: Published, outdated: Sequence[bytes] = ()) -> None:
        """Publish deletions, then drop the records with the keys `outdated`.

        Raises LogUnavailable.
        """
        if self._producer is None:
            self._producer = Producer(
                self._settings, delivery_timeout_s=self._settings.kafka_timeout_s
            )
        topic = self._settings.deletions_topic
        try:
            for kind, digest, place in found:
                self._producer.raw(
                    topic, *encode_record(kind, digest, place, self._hasher.fingerprint)
                )
            self._producer.flush()
            for key in outdated:
                self._producer.raw(topic, key, None)
            self._producer.flush()
        except BaseException:
            self._producer = None
            raise


def recover(settings: Settings, client: Client) -> int:
    """Bring Redis up to date with every deletion in the log; answers how many were new to it.

    Raises ConfigurationError: another DELETION_SALT. LogUnavailable, StoreUnavailable: call it
    again. StoreCorrupt.
    """
    recovery = _Recovery(settings, client)
    try:
        for _ in range(_TRIES):
            try:
                return recovery.run()
            except Stale as stale:
                _log.info("deletions_recovery_restarted", cause=str(stale))
        raise StoreUnavailable(
            f"the deletions were changed by others {_TRIES} times while they were recovered"
        )
    finally:
        recovery.close()


@dataclass
class _Unread:
    """A partition of the topic of deletions from Redis' position to its end: [first, next).

    By the message's key: `unknown`: offset and record of each deletion that Redis does not know;
    `outdated`: records that an older release wrote.
    """

    partition: Partition
    first: int
    next: int
    unknown: dict[bytes, tuple[int, DeletionRecord]] = field(default_factory=dict)
    outdated: dict[bytes, DeletionRecord] = field(default_factory=dict)

    def add(
        self, key: bytes, offset: int, record: DeletionRecord | None, known: Place | None
    ) -> None:
        """The next record of the topic, in its order.

        None: the deletion of this key was dropped. `known`: what Redis knows of the id.
        """
        if record is None:
            self.unknown.pop(key, None)
            self.outdated.pop(key, None)
            return
        if record.identifier is not None:
            self.outdated[key] = record
        if not record.place.is_dead(known):
            self.unknown[key] = offset, record


class _Recovery:
    """One recovery, with its connections."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings, self._client = settings, client
        self._hasher = IdHasher(settings.deletion_salt)
        self._publisher = Publisher(settings, self._hasher)
        self._later = LaterEvents(settings)
        planner = Planner(settings.use_cases, settings.experiments)
        self._applier = EntryApplier(
            client, planner, settings.history_cap, self._publisher.publish, self._later
        )
        self._reader = LogReader(settings, "deletions")
        self._topics = TopicIds(
            settings, [settings.deletions_topic, settings.users_topic, settings.items_topic]
        )
        self._topic_ids: dict[str, TopicId] = {}

    def close(self) -> None:
        """Drop the connections."""
        self._applier.close()
        self._later.close()
        self._reader.close()

    def run(self) -> int:
        """Steps 1 to 5. Raises Stale: start again."""
        deletions.prepare(self._client, self._hasher)
        self._topic_ids = self._topics.read()
        self._check_topic()
        names = self._publish_ahead()
        unread = [
            self._read(partition)
            for partition in self._reader.partitions(self._settings.deletions_topic)
        ]
        unknown = [record for part in unread for _, record in part.unknown.values()]
        names |= self._find_names(
            {(record.kind, record.digest) for record in unknown if record.identifier is None}
            - names.keys()
        )
        for part in unread:
            self._apply(part, names)
        self._mark_ready(unread)
        for part in unread:
            rewritten = [
                (record.kind, record.digest, record.place) for record in part.outdated.values()
            ]
            if rewritten:
                self._publisher.publish(rewritten, list(part.outdated))
        if unknown:
            _log.info(
                "deletions_recovered", topic=self._settings.deletions_topic, deletions=len(unknown)
            )
        return len({(record.kind, record.digest) for record in unknown})

    def _check_topic(self) -> None:
        """If the topic of deletions is another one by now, it is read from its beginning, and gets
        every deletion that Redis holds.
        """
        topic = self._settings.deletions_topic
        topic_id = self._topic_ids[topic]
        with named_errors("comparing the topic of deletions"):
            noted: Any = self._client.hget(keys.DELETIONS, "topic_id")
            if topic_id is None or (noted is not None and noted.decode() == topic_id):
                return
            if noted is not None:
                _log.warning(
                    "deletions_topic_recreated",
                    topic=topic,
                    noted=noted.decode(),
                    topic_id=topic_id,
                )
                self._restart_topic()
            self._client.hset(keys.DELETIONS, "topic_id", topic_id)

    def _restart_topic(self) -> None:
        """Publish every deletion that Redis holds, and read the topic from its beginning."""
        for kind in KINDS:
            self._publisher.publish(
                [(kind, digest, place) for digest, place in deletions.scan(self._client, kind)]
            )
        with named_errors("going back to the beginning of the topic of deletions"):
            fields: Any = self._client.hkeys(keys.DELETIONS)
            positions_ = [field for field in fields if field.startswith(b"position:")]
            if positions_:
                self._client.hdel(keys.DELETIONS, *positions_)

    def _publish_ahead(self) -> _Names:
        """Step 2; answers the ids of the deletions met."""
        names: _Names = {}
        topics: dict[Kind, str] = {
            "user": self._settings.users_topic,
            "item": self._settings.items_topic,
        }
        for kind, topic in topics.items():
            partitions = self._reader.partitions(topic)
            starts = {
                each: (positions.read(self._client, *each).offset, None) for each in partitions
            }
            places: dict[str, Place] = {}
            for message in self._reader.read(starts):
                if message.value() is not None:
                    continue
                try:
                    identifier = codec.decode_id(message.key())
                except BadEvent:  # ingest makes a dead letter of it
                    continue
                digest = self._hasher(kind, identifier)
                names[kind, digest] = identifier
                place = Place(
                    message.timestamp()[1] / 1000,
                    message.partition(),
                    message.offset(),
                    self._topic_ids[topic],
                )
                places[digest] = place.later(places.get(digest))
            known = deletions.lookup(self._client, kind, list(places))
            new = [
                (kind, digest, place)
                for (digest, place), old in zip(places.items(), known, strict=True)
                if not place.is_dead(old)
            ]
            if new:
                self._publisher.publish(new)
        return names

    def _read(self, partition: Partition) -> _Unread:
        """Step 3 for one partition."""
        halts.check(self._client, *partition)
        with named_errors(f"reading the position of {partition[0]}/{partition[1]}"):
            first = int(self._client.hget(keys.DELETIONS, f"position:{partition[1]}") or 0)
        part = _Unread(partition, first, first)
        for chunk in _chunks(self._reader.read({partition: (first, None)}), _CHUNK):
            if chunk[0].offset() < first:  # the broker lost the end of the topic
                _log.warning(
                    "deletions_topic_rewound",
                    partition=partition[1],
                    position=first,
                    offset=chunk[0].offset(),
                )
                self._restart_topic()
                raise Stale(0, f"{partition[0]}/{partition[1]} was shortened below offset {first}")
            part.next = chunk[-1].offset() + 1
            records = [self._decoded(message) for message in chunk]
            known: dict[tuple[Kind, str], Place | None] = {}
            for kind in KINDS:
                digests = [
                    record.digest
                    for record in records
                    if record is not None and record.kind == kind
                ]
                places = deletions.lookup(self._client, kind, digests)
                known |= {
                    (kind, digest): place for digest, place in zip(digests, places, strict=True)
                }
            for message, record in zip(chunk, records, strict=True):
                if record is not None or message.value() is None:
                    place = None if record is None else known[record.kind, record.digest]
                    part.add(message.key() or b"", message.offset(), record, place)
        return part

    def _decoded(self, message: Any) -> DeletionRecord | None:
        """None: the record says that a deletion was dropped, or is nothing of ours."""
        value = message.value()
        if value is None:
            return None
        try:
            record = decode_record(message.key(), value, self._hasher)
        except BadEvent as error:
            _log.warning(
                "deletion_not_readable",
                partition=message.partition(),
                offset=message.offset(),
                reason=str(error),
            )
            return None
        deletions.check_salt(record.salt, self._hasher)
        return record

    def _find_names(self, wanted: set[tuple[Kind, str]]) -> _Names:
        """Step 4, for deletions of which only the hash is known: the ids in Redis that they stand
        for.
        """
        if not wanted:
            return {}
        names: _Names = {}
        with named_errors("looking for deleted users and items"):
            # nobody brings an id back that was looked for already
            self._client.hset(keys.DELETIONS, "ready", "0")
            for kind, identifier in self._identifiers():
                each = kind, self._hasher(kind, identifier)
                if each in wanted:
                    names[each] = identifier
        return names

    def _identifiers(self) -> Iterator[tuple[Kind, str]]:
        """Every user and item id in Redis, most of them more than once."""
        for key in self._client.scan_iter(keys.user("*"), count=1000):
            yield "user", keys.unescape(key.decode().split(":", 2)[1])
        for key in experiments.sets_of_users(self._client, self._settings.experiments):
            for member, _ in self._client.zscan_iter(key, count=1000):
                yield "user", member.decode()
        for item_id, _ in self._client.hscan_iter(keys.ITEMS, count=1000):
            yield "item", item_id.decode()

    def _apply(self, part: _Unread, names: _Names) -> None:
        """Step 4 for one partition, and its position. Raises Stale."""
        topic, number = part.partition
        at = part.first
        unknown = sorted(part.unknown.values(), key=lambda each: each[0])
        for start in range(0, len(unknown), _CHUNK):
            chunk = unknown[start : start + _CHUNK]
            entries = [
                Entry(
                    record.kind,
                    record.digest,
                    record.identifier or names.get((record.kind, record.digest)),
                    record.place,
                    None,
                )
                for _, record in chunk
            ]
            end = part.next if start + _CHUNK >= len(unknown) else chunk[-1][0] + 1
            self._applier.apply(
                EntryBatch(OffsetRange(topic, number, at, end), entries, of_deletions=True)
            )
            at = end
        if at < part.next:
            self._applier.apply(
                EntryBatch(OffsetRange(topic, number, at, part.next), [], of_deletions=True)
            )

    def _mark_ready(self, unread: Sequence[_Unread]) -> None:
        """Step 5. Raises Stale: Redis was emptied or set back meanwhile."""
        with (
            named_errors("noting that the deletions are complete"),
            self._client.pipeline() as pipe,
        ):
            connection.watch(pipe, keys.DELETIONS)
            stands: Any = pipe.hmget(
                keys.DELETIONS, [f"position:{part.partition[1]}" for part in unread]
            )
            for part, position in zip(unread, stands, strict=True):
                if int(position or 0) < part.next:
                    raise Stale(
                        int(position or 0),
                        (
                            f"Redis stands at {int(position or 0)} of {part.partition}, not at "
                            f"{part.next}"
                        ),
                    )
            pipe.multi()
            deletions.set_ready(pipe)
            if not connection.execute(pipe):
                raise Stale(0, "another process changed the deletions")


def _chunks(messages: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(messages, size)):
        yield chunk
