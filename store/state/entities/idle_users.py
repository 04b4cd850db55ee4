"""Moves users without recent events out of Redis, and back.

A user's events stay in the archive, so what leaves is the history and the vector. The counters stay
as `user:{id}:idle`, so that none is ever lost: the counters of `user:{id}` and of
`user:{id}:idle` together count every event of the user, whatever process dies when. The events of a
user who returns are counted in a new `user:{id}`, until the user is restored: then the archived
lines go before the new ones, and the counters are added up.

Each change of a user is one transaction:

1. WATCH the user's counters, which change with each event of the user, the state of the deletions,
   and the mark of a wipe.
2. Read them. Skip a user whose counters are not those that the caller checked against the archive.
3. MULTI, the changes, EXEC. Nil: another process changed a watched key; the next run tries again.

Users who leave also change the token of the deletions: so no live worker writes a vector of the
former history, and ingest forgets which users have a first_seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from core.errors import StoreError
from store.state import connection, keys, wipe
from store.state.apply import deletions
from store.state.connection import named_errors

USERS = 50
"""Users in one transaction and in one read, which take Redis some milliseconds."""
PAUSE_S = 0.02
"""Seconds between two transactions: each makes ingest plan a batch again."""
_LATEST = 10
"""Lines of a history of which the latest time decides: the last one may be of a late event."""
_SCANNED = 1000
"""Keys of one SCAN, which takes Redis about a millisecond."""


class Counted(NamedTuple):
    """The events of a user that Redis counts: since the return, and before the user left (0: the
    user did not leave).
    """

    current: int
    idle: int

    @property
    def all(self) -> int:
        """All events."""
        return self.current + self.idle


class UserActivity(NamedTuple):
    """A user with events in Redis. `latest`: time of the latest of the last lines, in seconds."""

    user_id: str
    counted: Counted
    latest: int


def scan(client: redis.Redis) -> Iterator[UserActivity]:
    """Every user who has events in Redis; it may return one twice. Raises StoreUnavailable."""
    with named_errors("looking for idle users"):
        batch: list[str] = []
        for key in client.scan_iter("user:*", count=_SCANNED):
            parts = key.decode().split(":")
            if len(parts) == 2:
                batch.append(keys.unescape(parts[1]))
            if len(batch) == USERS:
                yield from _activities(client, batch)
                batch.clear()
        yield from _activities(client, batch)


def _activities(client: Any, user_ids: Sequence[str]) -> Iterator[UserActivity]:
    pipe = client.pipeline(transaction=False)
    for user_id in user_ids:
        _read_counted(pipe, user_id)
        pipe.lrange(keys.history(user_id), -_LATEST, -1)
    replies = pipe.execute()
    for number, user_id in enumerate(user_ids):
        current, idle, lines = replies[3 * number : 3 * number + 3]
        if current and lines:
            counted = Counted(int(current), int(idle or 0))
            latest = max(int(line.split(b" ", 1)[0]) for line in lines)
            yield UserActivity(user_id, counted, latest)


def _read_counted(pipe: Any, user_id: str) -> None:
    pipe.hget(keys.user(user_id), "events")
    pipe.hget(keys.user_idle(user_id), "events")


def evict(client: redis.Redis, users: Mapping[str, Counted]) -> int:
    """Remove histories and vectors of `users` who have still exactly these events.

    Returns how many users left. Raises StoreUnavailable, StoreError while the state is incomplete.
    """
    evicted = 0
    with named_errors("removing idle users"):
        for chunk in _chunks(list(users)):
            with client.pipeline() as pipe:
                stored = _open(pipe, chunk)
                pipe.multi()
                leaving = [user_id for user_id in chunk if stored[user_id] == users[user_id]]
                for user_id in leaving:
                    _queue_eviction(pipe, user_id, stored[user_id])
                if leaving:
                    pipe.hset(keys.DELETIONS, deletions.TOKENS["user"], deletions.token())
                    evicted += len(leaving) if connection.execute(pipe) else 0
            time.sleep(PAUSE_S)
    return evicted


def restore(client: redis.Redis, user_id: str, idle: int, lines: Sequence[str], cap: int) -> bool:
    """Bring back a user who had `idle` events when the user left.

    `lines`: the latest of these events, at most `cap`, oldest first. False: not restored, because
    the user changed meanwhile. Raises StoreUnavailable, StoreError while the state is incomplete.
    """
    with named_errors(f"restoring user {user_id!r}"), client.pipeline() as pipe:
        counted = _open(pipe, [user_id])[user_id]
        if not counted.current or counted.idle != idle:
            return False
        counters: Any = pipe.hgetall(keys.user_idle(user_id))
        room = cap - int(pipe.llen(keys.history(user_id)))
        pipe.multi()
        for name, value in counters.items():
            if name == b"first_seen":
                pipe.hset(keys.user(user_id), name, value)
            else:
                pipe.hincrby(keys.user(user_id), name, int(value))
        if room > 0:
            pipe.lpush(keys.history(user_id), *reversed(lines[-room:]))
        pipe.delete(keys.user_idle(user_id), keys.user_als(user_id))
        return connection.execute(pipe)


def _open(pipe: Any, user_ids: Sequence[str]) -> dict[str, Counted]:
    """Steps 1 and 2: what Redis counts of each user. Raises StoreError."""
    watched = [key for user_id in user_ids for key in (keys.user(user_id), keys.user_idle(user_id))]
    connection.watch(pipe, keys.DELETIONS, keys.WIPE, *watched)
    if not deletions.parse_state(pipe.hmget(keys.DELETIONS, deletions.STATE_FIELDS)).ready:
        raise StoreError(
            "the deletions in Redis are not complete: it is new, was emptied, or is being "
            "recovered. Start `python -m streams ingest`, then run this again"
        )
    wipe.check(pipe)
    counted = {}
    for user_id in user_ids:
        current = pipe.hget(keys.user(user_id), "events")
        idle = pipe.hget(keys.user_idle(user_id), "events")
        counted[user_id] = Counted(int(current or 0), int(idle or 0))
    return counted


def _queue_eviction(pipe: Any, user_id: str, counted: Counted) -> None:
    """RENAME and DEL work on a Redis that is full, too."""
    pipe.delete(keys.history(user_id), keys.user_als(user_id))
    if not counted.idle:
        pipe.rename(keys.user(user_id), keys.user_idle(user_id))
        return
    # the user had left before, and returned with old events only
    pipe.eval(_ADD_COUNTERS, 2, keys.user(user_id), keys.user_idle(user_id))


_ADD_COUNTERS = """
local counters = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
for i = 1, #counters, 2 do
  if counters[i] ~= 'first_seen' then
    redis.call('HINCRBY', KEYS[2], counters[i], counters[i + 1])
  end
end
"""


def _chunks(user_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(user_ids), USERS):
        yield user_ids[start : start + USERS]
