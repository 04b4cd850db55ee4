"""Reads the whole state of a user in one round trip, and formats the lines of a history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import redis

from core.contract import problems
from core.errors import StoreCorrupt
from core.types import HistoryEvent, LiveVector, User, UserState
from store.state import keys
from store.state.connection import Client, named_errors

REPLIES = 4
"""Number of replies for one user."""
NOTED_S = 30 * 24 * 3600
"""Seconds until a noted partition expires: long after the producer was corrected, so that no id
stays forever.
"""
VECTOR_FIELDS = ("version", "made_with", "as_of", "vector")
"""Fields of a stored vector, in the order of LiveVector."""

_PROFILES = 500
"""Profiles in one command."""
_users = msgspec.json.Decoder(User)


def profiles(clients: Iterable[Client]) -> Iterator[User]:
    """What every user declared; a profile that is written meanwhile may come twice.

    `clients`: of all shards. Raises StoreUnavailable.
    """
    with named_errors("reading the profiles"):
        for client in clients:
            pattern = keys.of(client).profile("*")
            profile_keys = client.scan_iter(match=pattern, count=_PROFILES)
            while batch := list(islice(profile_keys, _PROFILES)):
                values: Any = client.mget(batch)
                for data in values:
                    if data is not None:
                        yield _users.decode(data)


def commands(shard: keys.Keys, user_id: str, cap: int) -> tuple[tuple[str | int, ...], ...]:
    """The commands that read one user, whose keys are those of `shard`.

    `parse` takes their REPLIES replies in the same order.
    They need no transaction: `as_of`, which is written with a vector, says how many events are in
    the vector, and the history is at most some events ahead of the counters.
    """
    return (
        ("HGETALL", shard.user(user_id)),
        ("LRANGE", shard.history(user_id), -cap, -1),
        ("GET", shard.profile(user_id)),
        ("HMGET", shard.user_als(user_id), *VECTOR_FIELDS),
    )


def parse(user_id: str, replies: list[Any]) -> UserState:
    """The state in the replies to `commands`.

    Raises StoreCorrupt when a key holds a value that Eddyline did not write.
    """
    counters, history, profile, als = replies
    # a raw connection returns a flat list, a client a dict
    if isinstance(counters, list):
        counters = dict(zip(counters[::2], counters[1::2], strict=True))
    try:
        counts = {
            name[3:].decode(): int(count)
            for name, count in counters.items()
            if name.startswith(b"ev:")
        }
        first_seen = counters.get(b"first_seen")
        return UserState(
            user_id=user_id,
            events=int(counters.get(b"events", 0)),
            counts=counts,
            first_seen=None if first_seen is None else int(first_seen),
            history=history_events(history),
            profile=None if profile is None else _users.decode(profile),
            als=live_vector(als),
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreCorrupt(
            f"user:{user_id} or a key below it holds a value that Eddyline did not write: "
            f"{problems.in_words(error, profile, 'profile')}"
        ) from None


def live_vector(reply: Any) -> LiveVector | None:
    """The vector in the reply to HMGET VECTOR_FIELDS; None if a live worker did not write it.

    It is only a cache, so a foreign value is no error.
    """
    try:
        version, made_with, as_of, vector = reply
        return LiveVector(version.decode(), made_with.decode(), int(as_of), bytes(vector))
    # a field is missing, or the reply is an error: a key of another type
    except (AttributeError, TypeError, ValueError):
        return None


def read(client: redis.Redis, user_id: str, cap: int) -> UserState:
    """The state of one user of the client's shard; an unknown user has no events.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors(f"reading user {user_id!r}"):
        pipe: Any = client.pipeline(transaction=False)
        for command in commands(keys.of(client), user_id, cap):
            pipe.execute_command(*command)
        return parse(user_id, pipe.execute())


def note_partitions(client: Client, foreign: Sequence[tuple[str, int]]) -> None:
    """Note (user id, partition) of events that came through a foreign partition.

    `foreign`: of users of the client's shard. Raises StoreUnavailable.
    """
    with named_errors("noting foreign partitions"):
        pipe: Any = client.pipeline(transaction=False)
        for user_id, partition in foreign:
            key = keys.of(client).user_partitions(user_id)
            pipe.sadd(key, partition)
            pipe.expire(key, NOTED_S)
        pipe.execute()


def foreign_partitions(client: Client, user_id: str) -> list[int]:
    """The partitions that `note_partitions` noted of a user in the last NOTED_S.

    Raises StoreUnavailable.
    """
    with named_errors(f"reading the partitions of user {user_id!r}"):
        noted: Any = client.smembers(keys.of(client).user_partitions(user_id))
    return sorted(map(int, noted))


def history_line(timestamp: float, event_type: str, value: float | None, item_id: str) -> str:
    """The line of one event: `1732340000 view startup-9`, `1732340000 rating=4 2571`."""
    if value is None:
        return f"{int(timestamp)} {event_type} {item_id}"
    return f"{int(timestamp)} {event_type}={repr(value).removesuffix('.0')} {item_id}"


def history_events(lines: Sequence[bytes]) -> list[HistoryEvent]:
    """The events of a history's lines. Raises ValueError.

    If no id has a space and no event a value, one split of all lines takes 60% of the time of a
    split of each line.
    """
    text = b" ".join(lines)
    if text.count(b" ") != 3 * len(lines) - 1 or b"=" in text:
        return [history_event(line) for line in lines]
    fields = text.decode().split(" ")
    return list(map(HistoryEvent, map(int, fields[::3]), fields[1::3], fields[2::3]))


def history_event(line: bytes) -> HistoryEvent:
    """The event of a line that `history_line` wrote. Raises ValueError."""
    timestamp, event_type, item_id = line.decode().split(" ", 2)
    if "=" not in event_type:
        return HistoryEvent(int(timestamp), event_type, item_id)
    name, _, value = event_type.partition("=")
    return HistoryEvent(int(timestamp), name, item_id, float(value))
