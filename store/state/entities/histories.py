"""Reads parts of many users' states in a thread: who has events, which items a history holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis
import structlog

from core.process.background import pause
from store.state import keys
from store.state.connection import Client, named_errors
from store.state.entities.users import history_events
from store.state.shards import Shards, users_by_shard

_log = structlog.get_logger(__name__)
_USERS = 16
"""Histories in one round trip: 8,000 lines at a history cap of 500, a millisecond of Redis."""

Command = tuple[str | int, ...]


def with_events(shards: Shards, user_ids: Sequence[str]) -> list[str]:
    """The users who have events, in the order of `user_ids`. Raises StoreUnavailable."""

    def command(shard: keys.Keys, user_id: str) -> Command:
        return "HGET", shard.user(user_id), "events"

    events: dict[str, int] = {}
    for client, of_shard in _by_shard(shards, user_ids):
        replies = _replies(client, of_shard, command, "counting events of users")
        for user_id, reply in zip(of_shard, replies, strict=True):
            events[user_id] = int(reply or 0) if _readable(user_id, reply) else 0
    return [user_id for user_id in user_ids if events[user_id]]


def item_sets(shards: Shards, user_ids: Sequence[str], cap: int) -> list[set[str]]:
    """The items in the latest `cap` events of each user. Raises StoreUnavailable."""

    def command(shard: keys.Keys, user_id: str) -> Command:
        return "LRANGE", shard.history(user_id), -cap, -1

    sets: dict[str, set[str]] = {}
    for client, of_shard in _by_shard(shards, user_ids):
        for start in range(0, len(of_shard), _USERS):
            part = of_shard[start : start + _USERS]
            replies = _replies(client, part, command, "reading histories")
            for user_id, reply in zip(part, replies, strict=True):
                sets[user_id] = (
                    {event.item_id for event in history_events(reply)}
                    if _readable(user_id, reply)
                    else set()
                )
                pause()
    return [sets[user_id] for user_id in user_ids]


def _by_shard(shards: Shards, user_ids: Sequence[str]) -> Iterator[tuple[Client, list[str]]]:
    for shard, of_shard in users_by_shard(user_ids, len(shards)).items():
        yield shards[shard], of_shard


def _replies(
    client: Client, user_ids: Sequence[str], command: Callable[[keys.Keys, str], Command], what: str
) -> list[Any]:
    with named_errors(what):
        pipe: Any = client.pipeline(transaction=False)
        for user_id in user_ids:
            pipe.execute_command(*command(keys.of(client), user_id))
        replies: list[Any] = pipe.execute(raise_on_error=False)
        return replies


def _readable(user_id: str, reply: Any) -> bool:
    """Whether the reply is a value, and not an error because of a key of a foreign type.

    Such a key makes one user unreadable; the others are still read.
    """
    if isinstance(reply, redis.ResponseError):
        _log.error("user_unreadable", user_id=user_id, error=str(reply))
        return False
    return True
