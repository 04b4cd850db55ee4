"""Which users and items are deleted, as Redis holds it.

The hash `deletions` says whether that is complete, and changes with each deletion, so that every
apply WATCHes this one key:

    ready          1: every deletion of the topic of deletions is here. Absent (Redis was emptied): nothing may be applied before
                   streams.ingest.deletions.recovery has recovered them
    newest         the latest broker time (seconds) of a user's deletion: no younger event needs to be looked up
    users, items   a random token, new with each deletion. Random, so that a Redis that was set back
    never repeats one
    position:2     the first offset of that partition of the topic of deletions that is not here
    topic_id, salt of the topic these positions count in, and the fingerprint of DELETION_SALT
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from core.deletions import KINDS, IdHasher, Kind, Place, parse_place
from core.errors import ConfigurationError, StoreCorrupt, StoreUnavailable
from store.state import changes, keys
from store.state.connection import named_errors

HASHES: dict[Kind, str] = {"user": keys.USERS_DELETED, "item": keys.ITEMS_DELETED}
"""Kind -> the key that holds its deletions."""
TOKENS: dict[Kind, str] = {"user": "users", "item": "items"}
"""Kind -> field of `deletions` that changes with each deletion of that kind."""
STATE_FIELDS = ("ready", "newest", "users")
"""Fields that `parse_state` reads."""
CHANGES = 100_000
"""Deletions of users kept for readers that follow; one that falls further behind reads all of them.
"""
_CHUNK = 500
"""Ids in one command: it holds Redis for well under a millisecond."""
_OLD_VERSION = "users:deleted:version"
"""Where an older release kept a number that moved with each deletion; its `users:deleted` held ids
in clear and times.
"""


class State(NamedTuple):
    """`newest`: the latest broker time (seconds) of a deletion.

    `version`: other deletions of users mean another version.
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
        """Broker time (seconds) up to which this user's interactions do not count; minus infinity:
        the user was never deleted.
        """
        return self._times.get(self._hasher("user", user_id), -math.inf)


def parse_state(values: Sequence[bytes | None]) -> State:
    """The state in the values of STATE_FIELDS."""
    ready, newest, version = values
    return State(ready == b"1", float(newest or -1.0), (version or b"").decode())


def state(client: Any) -> State:
    """Whether the deletions are complete, and which they are.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the state of deletions"):
        return parse_state(client.hmget(keys.DELETIONS, STATE_FIELDS))


def parse(key: str, value: bytes | None) -> Place | None:
    """The place in a value of `users:deleted` or `items:deleted`. Raises StoreCorrupt."""
    try:
        return None if value is None else parse_place(value)
    except ValueError:
        raise StoreCorrupt(f"{key} holds {value!r}, which is no deletion of Eddyline") from None


def lookup(client: Any, kind: Kind, digests: Sequence[str]) -> list[Place | None]:
    """The latest deletion of each hashed id, None where there is none.

    Raises StoreUnavailable, StoreCorrupt.
    """
    places: list[Place | None] = []
    key = HASHES[kind]
    with named_errors(f"reading {key}"):
        for start in range(0, len(digests), _CHUNK):
            places += [
                parse(key, value) for value in client.hmget(key, digests[start : start + _CHUNK])
            ]
    return places


def every(client: Any, kind: Kind) -> Iterator[tuple[str, Place]]:
    """Each deletion of `kind`, as hashed id and place; one may come twice.

    Raises StoreUnavailable, StoreCorrupt.
    """
    key = HASHES[kind]
    with named_errors(f"reading {key}"):
        for digest, value in client.hscan_iter(key, count=_CHUNK):
            place = parse(key, value)
            assert place is not None
            yield digest.decode(), place


def users(client: Any, hasher: IdHasher) -> DeletedUsers:
    """All deleted users: some 100 bytes each.

    Raises StoreUnavailable, also while Redis does not know them, and StoreCorrupt.
    """
    if not state(client).ready:
        raise StoreUnavailable(
            "Redis does not know who was deleted: it is new, was emptied, or is being "
            "recovered. Start `python -m streams ingest`, which "
            "reads the deletions from the log, then try again"
        )
    return DeletedUsers(hasher, {digest: place.time for digest, place in every(client, "user")})


class ChangedUsers(NamedTuple):
    """Hashed ids of users deleted since a cursor, and the cursor to ask from next."""

    cursor: str
    digests: list[str]


def changed_users(client: Any, after: str) -> ChangedUsers:
    """Who was deleted since `after` (a former answer's cursor; "": everyone, also when it cannot be
    told). Raises StoreUnavailable.
    """
    with named_errors("reading who was deleted"):
        news = changes.since(client, keys.USERS_DELETED_CHANGES, after)
        if news is not None:
            return ChangedUsers(news.cursor, [digest.decode() for digest in news.ids])
        cursor = changes.latest(client, keys.USERS_DELETED_CHANGES)
    return ChangedUsers(cursor, [digest for digest, _ in every(client, "user")])


def count(client: Any, kind: Kind) -> int:
    """How many ids of `kind` are noted as deleted. Raises StoreUnavailable."""
    with named_errors(f"counting {HASHES[kind]}"):
        return int(client.hlen(HASHES[kind]))


def forget(client: Any, kind: Kind, digests: Sequence[str]) -> None:
    """Drop deletions that neither log nor archive can contradict any more.

    Raises StoreUnavailable.
    """
    with named_errors(f"dropping old entries of {HASHES[kind]}"):
        for start in range(0, len(digests), _CHUNK):
            client.hdel(HASHES[kind], *digests[start : start + _CHUNK])


def prepare(client: redis.Redis, hasher: IdHasher) -> None:
    """Note the salt, or compare it with the one noted, and rewrite what an older release noted.

    Raises ConfigurationError: another DELETION_SALT hides every deletion noted before.
    StoreUnavailable, StoreCorrupt.
    """
    with named_errors("comparing DELETION_SALT"):
        pipe: Any = client.pipeline(transaction=True)
        pipe.hsetnx(keys.DELETIONS, "salt", hasher.fingerprint)
        pipe.hget(keys.DELETIONS, "salt")
        check_salt(pipe.execute()[-1].decode(), hasher)
        if client.exists(_OLD_VERSION):
            _rewrite(client, hasher)


def check_salt(fingerprint: str, hasher: IdHasher) -> None:
    """Raises ConfigurationError unless deletions were noted under this salt."""
    if fingerprint != hasher.fingerprint:
        raise ConfigurationError(
            f"DELETION_SALT is not the one under which deletions were noted (fingerprint "
            f"{fingerprint}, this one has "
            f"{hasher.fingerprint}): deleted users would come back. Put the former value "
            f"back; there is no way to change it"
        )


def _rewrite(client: Any, hasher: IdHasher) -> None:
    """From user id -> time to hashed id -> place.

    A crash between leaves both kinds, which the next start rewrites.
    """
    newest = -1.0
    for raw, value in client.hscan_iter(keys.USERS_DELETED, count=_CHUNK):
        rewritten = b" " in value
        newest = max(newest, parse_place(value).time if rewritten else float(value))
        if rewritten:
            continue
        pipe = client.pipeline(transaction=True)
        pipe.hdel(keys.USERS_DELETED, raw)
        pipe.hset(keys.USERS_DELETED, hasher("user", raw.decode()), Place(float(value)).text())
        pipe.execute()
    pipe = client.pipeline(transaction=True)
    pipe.hset(keys.DELETIONS, mapping={"newest": repr(newest), "users": token()})
    pipe.xadd(keys.USERS_DELETED_CHANGES, {"user": ""})  # so that followers have a cursor
    pipe.unlink(_OLD_VERSION)
    pipe.execute()


def token() -> str:
    """A version that was never there before."""
    return secrets.token_hex(8)


def set_ready(pipe: Any) -> None:
    """Queue in `pipe` what says that every deletion is here."""
    pipe.hsetnx(keys.DELETIONS, "newest", "-1.0")
    for kind in KINDS:
        pipe.hsetnx(keys.DELETIONS, TOKENS[kind], token())
    pipe.hset(keys.DELETIONS, "ready", "1")


def mark_ready(client: Any) -> None:
    """Say so of a Redis that no log belongs to (tests, benchmarks); else streams.ingest.deletions.recovery
    does once it is true.
    """
    with named_errors("noting that the deletions are complete"), client.pipeline() as pipe:
        set_ready(pipe)
        pipe.execute()
