"""Brings every deletion of a user or an item from the log into Redis, before anything older than it
is applied.

The topics `users` and `items` are compacted: the record of a deletion is gone from them when the
user comes back, or some time later. So ingest publishes each deletion to a topic of its own before
it applies it. Redis holds that topic up to a position of its own, beside what the deletions did
(store.state.apply.deletions). A Redis that is new, was emptied or was set back is brought up to
date in these steps:

1. Compare the salt of the hashes, and rewrite notes of an older release.
2. Publish the deletions in `users` and `items` that ingest has not reached yet, so that their older
   events are not counted first and taken back later.
3. Read the topic of deletions from Redis' position to its end (`topic`).
4. Apply each deletion that Redis does not know, as ingest does (store.state.apply.entry_applier).
   The topic holds hashes. Their ids are those met in step 2; for the others every id in Redis is
   hashed, and no process applies anything meanwhile.
5. Mark Redis as ready.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import structlog

from core import codec
from core.contract.times import check_record_time
from core.deletions import IdHasher, Kind, Place
from core.errors import BadEvent, Stale, StoreUnavailable
from core.settings import Settings
from store.log.reader import LogReader
from store.log.topics.ids import TopicId, TopicIds
from store.state import connection, keys
from store.state.apply import deletions, positions
from store.state.apply.batches import OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from store.state.connection import Client, named_errors
from store.state.entities import experiments
from store.state.shards import Shards, UserCheck, shard_of_partition
from streams.ingest.deletions.later_events import LaterEvents
from streams.ingest.deletions.publisher import Publisher
from streams.ingest.deletions.topic import CHUNK, DeletionsTopic, Unread

_log = structlog.get_logger(__name__)

_TRIES = 20
"""Times that a recovery starts again because Redis was emptied, or because another process recovers
the same deletions.
"""

_Names = dict[tuple[Kind, str], str]
"""Kind and hashed id -> the id."""


def recover(settings: Settings, shards: Shards) -> int:
    """Bring Redis up to date with every deletion in the log; answers how many it did not know.

    Raises LogUnavailable, StoreUnavailable: retry; ConfigurationError: another DELETION_SALT;
    StoreCorrupt.
    """
    return sum(_recover(settings, client, shards.first) for client in shards)


def _recover(settings: Settings, client: Client, first: Client) -> int:
    recovery = _Recovery(settings, client, first)
    try:
        for _ in range(_TRIES):
            try:
                return recovery.run()
            except Stale as stale:
                _log.info("deletions_recovery_restarted", cause=str(stale))
        raise StoreUnavailable(
            f"other processes changed the deletions {_TRIES} times while they were recovered"
        )
    finally:
        recovery.close()


class _Recovery:
    """One recovery of a shard, with its connections."""

    def __init__(self, settings: Settings, client: Client, first: Client) -> None:
        self._settings, self._client, self._first = settings, client, first
        self._keys = names = keys.of(client)
        self._hasher = IdHasher(settings.deletion_salt)
        self._publisher = Publisher(settings, self._hasher, names.shard)
        self._later = LaterEvents(settings, names.shard)
        planner = Planner(settings.use_cases, settings.experiments, names.shards)
        self._applier = EntryApplier(
            client, planner, settings.history_cap, self._publisher.publish, self._later, first
        )
        self._reader = LogReader(settings, "deletions")
        self._topic = DeletionsTopic(settings, client, self._reader, self._publisher)
        self._topics = TopicIds(
            settings, [settings.deletions_topic, settings.users_topic, settings.items_topic]
        )

    def close(self) -> None:
        """Drop the connections."""
        self._applier.close()
        self._later.close()
        self._reader.close()

    def run(self) -> int:
        """Steps 1 to 5. Raises Stale: start again."""
        deletions.prepare(self._client, self._hasher)
        topic_ids = self._topics.read()
        self._topic.check(topic_ids[self._settings.deletions_topic])
        names = self._publish_ahead("user", self._settings.users_topic, topic_ids)
        names |= self._publish_ahead("item", self._settings.items_topic, topic_ids)
        unread = self._topic.read()
        unknown = [record for part in unread for _, record in part.unknown.values()]
        names |= self._find_names(
            {(record.kind, record.digest) for record in unknown if record.identifier is None}
            - names.keys()
        )
        for part in unread:
            self._apply(part, names)
        self._mark_ready(unread)
        self._rewrite_outdated(unread)
        if unknown:
            _log.info(
                "deletions_recovered", topic=self._settings.deletions_topic, deletions=len(unknown)
            )
        return len({(record.kind, record.digest) for record in unknown})

    def _publish_ahead(self, kind: Kind, topic: str, topic_ids: dict[str, TopicId]) -> _Names:
        """Step 2 for one topic; answers the ids of the deletions met."""
        names: _Names = {}
        users = UserCheck(self._keys.shards)
        starts = {
            partition: (positions.read(self._client, *partition).offset, None)
            for partition in self._reader.partitions(topic)
            if shard_of_partition(self._settings, *partition) == self._keys.shard
        }
        places: dict[str, Place] = {}
        for message in self._reader.read(starts):
            if message.value() is not None:
                continue
            broker_time = message.timestamp()[1] / 1000
            try:
                check_record_time(broker_time)
                identifier = codec.decode_id(message.key())
                if kind == "user":
                    users.check(identifier, message.partition())
            except BadEvent:  # ingest makes a dead letter of it
                continue
            digest = self._hasher(kind, identifier)
            names[kind, digest] = identifier
            place = Place(broker_time, message.partition(), message.offset(), topic_ids[topic])
            places[digest] = place.later(places.get(digest))
        known = deletions.lookup(self._client, kind, list(places))
        new = [
            (kind, digest, place)
            for (digest, place), known_place in zip(places.items(), known, strict=True)
            if not place.is_dead(known_place)
        ]
        if new:
            self._publisher.publish(new)
        return names

    def _find_names(self, digests: set[tuple[Kind, str]]) -> _Names:
        """Step 4, for deletions of which only the hash is known: their ids, of those in Redis."""
        if not digests:
            return {}
        names: _Names = {}
        with named_errors("looking for deleted users and items"):
            # else another process could bring an id back that was looked for already
            self._client.hset(self._keys.deletions, "ready", "0")
            for kind, identifier in self._identifiers():
                digest = kind, self._hasher(kind, identifier)
                if digest in digests:
                    names[digest] = identifier
        return names

    def _identifiers(self) -> Iterator[tuple[Kind, str]]:
        """Every user and item id in Redis, most of them more than once."""
        for key in self._client.scan_iter(self._keys.user("*"), count=1000):
            yield "user", self._keys.user_id(key)
        running = self._settings.experiments
        for key in experiments.sets_of_users(self._first, self._client, running):
            for member, _ in self._client.zscan_iter(key, count=1000):
                yield "user", member.decode()
        if self._keys.shard == 0:
            for item_id, _ in self._client.hscan_iter(self._keys.items, count=1000):
                yield "item", item_id.decode()

    def _apply(self, part: Unread, names: _Names) -> None:
        """Step 4 for one partition, and its position. Raises Stale."""
        first = part.first
        unknown = sorted(part.unknown.values(), key=lambda offset_and_record: offset_and_record[0])
        for start in range(0, len(unknown), CHUNK):
            chunk = unknown[start : start + CHUNK]
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
            end = part.next if start + CHUNK >= len(unknown) else chunk[-1][0] + 1
            offsets = OffsetRange(*part.partition, first, end)
            self._applier.apply(EntryBatch(offsets, entries, of_deletions=True))
            first = end
        if first < part.next:
            offsets = OffsetRange(*part.partition, first, part.next)
            self._applier.apply(EntryBatch(offsets, [], of_deletions=True))

    def _mark_ready(self, unread: Sequence[Unread]) -> None:
        """Step 5. Raises Stale: Redis was emptied or set back meanwhile."""
        with (
            named_errors("noting that the deletions are complete"),
            self._client.pipeline() as pipe,
        ):
            connection.watch(pipe, self._keys.deletions)
            fields = [f"position:{part.partition[1]}" for part in unread]
            stored: Any = pipe.hmget(self._keys.deletions, fields)
            for part, value in zip(unread, stored, strict=True):
                position = int(value or 0)
                if position < part.next:
                    where = f"Redis stands at {position} of {part.partition}"
                    raise Stale(position, f"{where}, not at {part.next}")
            pipe.multi()
            deletions.set_ready(pipe, self._keys.deletions)
            if not connection.execute(pipe):
                raise Stale(0, "another process changed the deletions")

    def _rewrite_outdated(self, unread: Sequence[Unread]) -> None:
        """Publish the records of an older release in today's form, and drop the old ones."""
        for part in unread:
            records = [
                (record.kind, record.digest, record.place) for record in part.outdated.values()
            ]
            if records:
                self._publisher.publish(records, list(part.outdated))
