"""Moves users without recent events out of Redis, and back.

A user's events stay in the archive, so what leaves is the history and the vector. The counters stay
as `user:{id}:idle`, so that none is ever lost: the counters of `user:{id}` and of
`user:{id}:idle` together count every event of the user, whatever process dies when. The events of a
user who returns are counted in a new `user:{id}`, until the user is restored: then the archived
lines go before the new ones, and the counters are added up.

Each change of a user is one step, which applies as a whole or not at all:

- Users leave by a script, which skips a user whose counters are not those that the caller checked
  against the archive. Redis refuses MULTI when it is full, and that is when users must leave.
- A user is restored by a transaction that WATCHes the user's counters, which change with each event
  of the user, the state of the deletions, and the mark of a wipe. If another process changes one of
  them, nothing is applied, and the next run tries again.

Users who leave also change the token of the deletions: so no live worker writes a vector of the
former history, and ingest forgets which users have a first_seen.

The functions take the client of the users' shard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from core.errors import StoreError
from store.state import connection, keys, wipe
from store.state.apply import deletions
from store.state.connection import Client, named_errors
from store.state.keys import Keys

USERS = 50
"""Users in one script and in one read, which take Redis some milliseconds."""
PAUSE_S = 0.02
"""Seconds between two scripts: each makes ingest plan a batch again."""
_LATEST = 10
"""Lines of a history of which the latest time decides: the last one may be of a late event."""
_SCANNED = 1000
"""Keys of one SCAN, which takes Redis about a millisecond."""


_EVICT = """#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], 'ready') ~= '1' or redis.call('EXISTS', KEYS[2]) == 1 then
  return -1
end
local left = 0
for i = 3, #KEYS, 4 do
  local user, idle, argument = KEYS[i], KEYS[i + 1], (i + 3) / 2
  local before = redis.call('HGET', idle, 'events')
  if redis.call('HGET', user, 'events') == ARGV[argument]
    and (before or '0') == ARGV[argument + 1]
  then
    left = left + 1
    redis.call('DEL', KEYS[i + 2], KEYS[i + 3])
    if before then
      local counters = redis.call('HGETALL', user)
      redis.call('DEL', user)
      for j = 1, #counters, 2 do
        if counters[j] ~= 'first_seen' then
          redis.call('HINCRBY', idle, counters[j], counters[j + 1])
        end
      end
    else
      redis.call('RENAME', user, idle)
    end
  end
end
if left > 0 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return left
"""
"""A user who left before, and returned with old events only, has idle counters already."""


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


def scan(client: Client) -> Iterator[UserActivity]:
    """Every user of a shard who has events in Redis; it may return one twice.

    Raises StoreUnavailable.
    """
    names = keys.of(client)
    with named_errors("looking for idle users"):
        batch: list[str] = []
        for key in client.scan_iter(names.user("*"), count=_SCANNED):
            if names.without_prefix(key).count(":") == 1:
                batch.append(names.user_id(key))
            if len(batch) == USERS:
                yield from _activities(client, batch)
                batch.clear()
        yield from _activities(client, batch)


def _activities(client: Any, user_ids: Sequence[str]) -> Iterator[UserActivity]:
    names = keys.of(client)
    pipe = client.pipeline(transaction=False)
    for user_id in user_ids:
        pipe.hget(names.user(user_id), "events")
        pipe.hget(names.user_idle(user_id), "events")
        pipe.lrange(names.history(user_id), -_LATEST, -1)
    replies = pipe.execute()
    for number, user_id in enumerate(user_ids):
        current, idle, lines = replies[3 * number : 3 * number + 3]
        if current and lines:
            counted = Counted(int(current), int(idle or 0))
            latest = max(int(line.split(b" ", 1)[0]) for line in lines)
            yield UserActivity(user_id, counted, latest)


def counters(client: Client, user_id: str) -> dict[str, int]:
    """The counters of a user who left Redis: `events`, and `ev:{type}` of each type.

    Empty for a user who did not leave. Raises StoreUnavailable.
    """
    with named_errors(f"reading the idle counters of {user_id!r}"):
        stored: Any = client.hgetall(keys.of(client).user_idle(user_id))
    return {name.decode(): int(count) for name, count in stored.items() if name != b"first_seen"}


def evict(client: Client, users: Mapping[str, Counted]) -> int:
    """Remove histories and vectors of `users` who have still exactly these events.

    Returns how many users left. Raises StoreUnavailable, StoreError while the state is incomplete.
    """
    left = 0
    with named_errors("removing idle users"):
        user_ids = list(users)
        for start in range(0, len(user_ids), USERS):
            chunk = user_ids[start : start + USERS]
            left += evict_together(client, {user_id: users[user_id] for user_id in chunk})
            time.sleep(PAUSE_S)
    return left


def evict_together(client: Any, users: Mapping[str, Counted]) -> int:
    """`evict` of at most USERS users, in one script."""
    names = keys.of(client)
    of_script = [names.deletions, names.wipe]
    arguments: list[str | int] = [deletions.TOKENS["user"], deletions.token()]
    for user_id, counted in users.items():
        of_script += [
            names.user(user_id),
            names.user_idle(user_id),
            names.history(user_id),
            names.user_als(user_id),
        ]
        arguments += [counted.current, counted.idle]
    left = int(client.eval(_EVICT, len(of_script), *of_script, *arguments))
    if left < 0:
        _check_complete(client, names)
        raise StoreError("the deletions in Redis were recovered meanwhile: run this again")
    return left


def restore(client: Client, user_id: str, idle: int, lines: Sequence[str], cap: int) -> bool:
    """Bring back a user who had `idle` events when the user left.

    `lines`: the latest of these events, at most `cap`, oldest first. False: not restored, because
    the user did not return, or changed meanwhile. Raises StoreUnavailable, StoreError while the
    state is incomplete.
    """
    with named_errors(f"restoring user {user_id!r}"), client.pipeline() as pipe:
        names = keys.of(client)
        user, idle_user = names.user(user_id), names.user_idle(user_id)
        connection.watch(pipe, names.deletions, names.wipe, user, idle_user)
        _check_complete(pipe, names)
        counters: Any = pipe.hgetall(idle_user)
        has_returned = pipe.exists(user) and idle and int(counters.get(b"events", 0)) == idle
        if not has_returned:
            return False
        room = cap - int(pipe.llen(names.history(user_id)))
        pipe.multi()
        for name, value in counters.items():
            if name == b"first_seen":
                pipe.hset(user, name, value)
            else:
                pipe.hincrby(user, name, int(value))
        if room > 0:
            pipe.lpush(names.history(user_id), *reversed(lines[-room:]))
        pipe.delete(idle_user, names.user_als(user_id))
        return connection.execute(pipe)


def _check_complete(client: Any, names: Keys) -> None:
    """Raises StoreError while the shard lacks deletions or is being wiped."""
    if not deletions.parse_state(client.hmget(names.deletions, deletions.STATE_FIELDS)).ready:
        raise StoreError(
            "the deletions in Redis are not complete: it is new, was emptied, or is being "
            "recovered. Start `python -m streams ingest`, then run this again"
        )
    if client.exists(names.wipe):
        raise wipe.incomplete()
