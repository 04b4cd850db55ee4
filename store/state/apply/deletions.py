"""Reads and maintains the deletions of users and items in Redis.

The hash `deletions` of a shard says whether those of its users, in shard 0 also those of items, are
complete. It changes with each deletion, so every apply WATCHes this one key. Its fields:

    ready         1: Redis has every deletion of the topic of deletions. Absent: Redis was emptied,
                  and nothing may be applied before streams.ingest.deletions.recovery has run
    newest        the latest broker time (seconds) of a user's deletion; later events need no lookup
    users, items  a token, new with each deletion; random, so that a Redis that was set back never
                  has the same token again
    position:2    the first offset of partition 2 of the topic of deletions that is not in Redis
    topic_id      the id of the topic in which these positions count
    salt          the fingerprint of DELETION_SALT
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from core.deletions import KINDS, IdHasher, Kind, Place, parse_place
from core.errors import ConfigurationError, StoreCorrupt, StoreUnavailable
from store.state import changes, connection, keys
from store.state.connection import named_errors
from store.state.keys import Keys

TOKENS: dict[Kind, str] = {"user": "users", "item": "items"}
"""Kind -> field of `deletions` with the token of that kind."""
STATE_FIELDS = ("ready", "newest", "users")
"""Fields that `parse_state` reads."""
CHANGES = 100_000
"""Deletions of users that the stream keeps. A reader that falls further behind reads all deletions.
"""
_CHUNK = 500
"""Ids in one command, which takes Redis well under a millisecond."""
_OLD_VERSION = "users:deleted:version"
"""Key of an older release, whose `users:deleted` had plain ids and times."""


def hash_of(names: Keys, kind: Kind) -> str:
    """The key of the deletions of `kind` in a shard."""
    return names.users_deleted if kind == "user" else names.items_deleted


class State(NamedTuple):
    """The fields of `deletions` that every apply reads.

    `newest`: the latest broker time (seconds) of a deletion. `version`: differs whenever the
    deletions of users differ.
    """

    ready: bool
    newest: float
    version: str


class DeletedUsers:
    """All deleted users, for readers of the archive."""

    def __init__(self, hasher: IdHasher, times: Mapping[str, float]) -> None:
        """`times`: hashed user id -> broker time (seconds) of the latest deletion."""
        self._hasher, self._times = hasher, times
        self.newest = max(times.values(), default=-math.inf)

    def __len__(self) -> int:
        return len(self._times)

    def time_of(self, user_id: str) -> float:
        """Broker time (seconds) up to which the user's interactions do not count.

        Minus infinity: the user was never deleted.
        """
        return self._times.get(self._hasher("user", user_id), -math.inf)


def parse_state(values: Sequence[bytes | None]) -> State:
    """The state in the values of STATE_FIELDS."""
    ready, newest, version = values
    return State(ready == b"1", float(newest or -1.0), (version or b"").decode())


def state(client: Any) -> State:
    """The state of the deletions.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the state of deletions"):
        return parse_state(client.hmget(keys.of(client).deletions, STATE_FIELDS))


def parse(key: str, value: bytes | None) -> Place | None:
    """The place in a value of `users:deleted` or `items:deleted`. Raises StoreCorrupt."""
    try:
        return None if value is None else parse_place(value)
    except ValueError:
        raise StoreCorrupt(
            f"{key} holds {value!r}, which is not a deletion that Eddyline wrote"
        ) from None


def lookup(client: Any, kind: Kind, digests: Sequence[str]) -> list[Place | None]:
    """The latest deletion of each hashed id, None where there is none.

    Raises StoreUnavailable, StoreCorrupt.
    """
    places: list[Place | None] = []
    key = hash_of(keys.of(client), kind)
    with named_errors(f"reading {key}"):
        for start in range(0, len(digests), _CHUNK):
            places += [
                parse(key, value) for value in client.hmget(key, digests[start : start + _CHUNK])
            ]
    return places


def scan(client: Any, kind: Kind) -> Iterator[tuple[str, Place]]:
    """Every deletion of `kind`, as hashed id and place; it may return one twice.

    Raises StoreUnavailable, StoreCorrupt.
    """
    key = hash_of(keys.of(client), kind)
    with named_errors(f"reading {key}"):
        for digest, value in client.hscan_iter(key, count=_CHUNK):
            place = parse(key, value)
            assert place is not None
            yield digest.decode(), place


def users(shards: Iterable[Any], hasher: IdHasher) -> DeletedUsers:
    """All deleted users, about 100 bytes each. `shards`: the client of each shard.

    Raises StoreUnavailable, also while the deletions are not complete, and StoreCorrupt.
    """
    times: dict[str, float] = {}
    for client in shards:
        _require_ready(client)
        for digest, place in scan(client, "user"):
            times[digest] = max(place.time, times.get(digest, -math.inf))
    return DeletedUsers(hasher, times)


def require(shards: Iterable[Any], hasher: IdHasher) -> None:
    """Check that a lookup by this salt would recognise every deletion that was applied.

    `shards`: the client of each shard. Raises StoreUnavailable while the deletions are not
    complete, ConfigurationError: another DELETION_SALT.
    """
    for client in shards:
        _require_ready(client)
        with named_errors("comparing DELETION_SALT"):
            salt: Any = client.hget(keys.of(client).deletions, "salt")
        if salt is not None:
            check_salt(salt.decode(), hasher)


def _require_ready(client: Any) -> None:
    if not state(client).ready:
        raise StoreUnavailable(
            "the deletions in Redis are not complete: it is new, was emptied, or is being "
            "recovered. Start `python -m streams ingest`, which reads the deletions from the log, "
            "then try again"
        )


class ChangedUsers(NamedTuple):
    """Hashed ids of users deleted since a cursor, and the cursor for the next call."""

    cursor: str
    digests: list[str]


def changed_users(client: Any, after: str) -> ChangedUsers:
    """The users deleted since `after`, the cursor of an earlier call ("": all).

    Returns all deleted users also when Redis no longer has all changes since then. Raises
    StoreUnavailable.
    """
    stream = keys.of(client).users_deleted_changes
    with named_errors("reading the deleted users"):
        changed = changes.since(client, stream, after)
        if changed is not None:
            return ChangedUsers(changed.cursor, [digest.decode() for digest in changed.ids])
        cursor = changes.latest(client, stream)
    return ChangedUsers(cursor, [digest for digest, _ in scan(client, "user")])


def count(client: Any, kind: Kind) -> int:
    """The number of deleted ids of `kind`. Raises StoreUnavailable."""
    key = hash_of(keys.of(client), kind)
    with named_errors(f"counting {key}"):
        return int(client.hlen(key))


def forget(client: Any, kind: Kind, places: Mapping[str, Place]) -> None:
    """Remove deletions that are older than every record of log and archive, by hashed id.

    An id that was deleted again meanwhile keeps its later deletion. Raises StoreUnavailable.
    """
    digests, key = list(places), hash_of(keys.of(client), kind)
    with named_errors(f"removing old entries of {key}"):
        for start in range(0, len(digests), _CHUNK):
            chunk = digests[start : start + _CHUNK]
            while not _forget(client, key, {name: places[name] for name in chunk}):
                pass


def _forget(client: Any, key: str, places: Mapping[str, Place]) -> bool:
    """Remove the entries that are still these. False: another process deleted something."""
    with client.pipeline() as pipe:
        connection.watch(pipe, keys.of(client).deletions)
        values = pipe.hmget(key, list(places))
        unchanged = [
            digest
            for (digest, place), value in zip(places.items(), values, strict=True)
            if parse(key, value) == place
        ]
        pipe.multi()
        if unchanged:
            pipe.hdel(key, *unchanged)
        return connection.execute(pipe)


def prepare(client: redis.Redis, hasher: IdHasher) -> None:
    """Store the fingerprint of the salt, or compare it; convert the deletions of an older release.

    Raises ConfigurationError: another DELETION_SALT would hide the stored deletions. Raises
    StoreUnavailable, StoreCorrupt.
    """
    names = keys.of(client)
    with named_errors("comparing DELETION_SALT"):
        pipe: Any = client.pipeline(transaction=True)
        pipe.hsetnx(names.deletions, "salt", hasher.fingerprint)
        pipe.hget(names.deletions, "salt")
        check_salt(pipe.execute()[-1].decode(), hasher)
        if client.exists(names.prefix + _OLD_VERSION):
            _convert(client, hasher)


def check_salt(fingerprint: str, hasher: IdHasher) -> None:
    """Raises ConfigurationError unless the fingerprint is the one of this salt."""
    if fingerprint != hasher.fingerprint:
        raise ConfigurationError(
            f"DELETION_SALT is not the one of the stored deletions (their fingerprint is "
            f"{fingerprint}, this one has {hasher.fingerprint}): deleted users would come back. "
            f"Set the former value again; it cannot be changed"
        )


def _convert(client: Any, hasher: IdHasher) -> None:
    """Convert user id -> time to hashed id -> place.

    After a crash both kinds of entries exist, and the next start converts the rest.
    """
    names, newest = keys.of(client), -1.0
    for raw, value in client.hscan_iter(names.users_deleted, count=_CHUNK):
        is_converted = b" " in value
        newest = max(newest, parse_place(value).time if is_converted else float(value))
        if is_converted:
            continue
        pipe = client.pipeline(transaction=True)
        pipe.hdel(names.users_deleted, raw)
        pipe.hset(names.users_deleted, hasher("user", raw.decode()), Place(float(value)).text())
        pipe.execute()
    pipe = client.pipeline(transaction=True)
    pipe.hset(names.deletions, mapping={"newest": repr(newest), "users": token()})
    pipe.xadd(names.users_deleted_changes, {"user": ""})  # so that followers have a cursor
    pipe.unlink(names.prefix + _OLD_VERSION)
    pipe.execute()


def token() -> str:
    """A new random token."""
    return secrets.token_hex(8)


def set_ready(pipe: Any, key: str) -> None:
    """Queue the commands in `pipe` that mark the deletions in `key` as complete."""
    pipe.hsetnx(key, "newest", "-1.0")
    for kind in KINDS:
        pipe.hsetnx(key, TOKENS[kind], token())
    pipe.hset(key, "ready", "1")


def mark_ready(client: Any) -> None:
    """Mark the deletions of a shard without a log (tests, benchmarks) as complete.

    In production only streams.ingest.deletions.recovery does so.
    """
    with named_errors("marking the deletions as complete"), client.pipeline() as pipe:
        set_ready(pipe, keys.of(client).deletions)
        pipe.execute()
