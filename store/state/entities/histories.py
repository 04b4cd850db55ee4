"""Reads parts of many users' states in a thread: who has events, which items a history holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
import structlog

from core.process.background import pause
from store.state import keys
from store.state.connection import Client, named_errors
from store.state.entities.users import history_events

_log = structlog.get_logger(__name__)
_USERS = 16
"""Histories in one round trip: 8,000 lines at a history cap of 500, a millisecond of Redis."""


def with_events(client: Client, user_ids: Sequence[str]) -> list[str]:
    """The users who have events, in the order of `user_ids`. Raises StoreUnavailable."""
    replies = _replies(
        client,
        [("HGET", keys.ONLY.user(user_id), "events") for user_id in user_ids],
        "counting events of users",
    )
    return [
        user_id
        for user_id, reply in zip(user_ids, replies, strict=True)
        if _readable(user_id, reply) and int(reply or 0)
    ]


def item_sets(client: Client, user_ids: Sequence[str], cap: int) -> list[set[str]]:
    """The items in the latest `cap` events of each user. Raises StoreUnavailable."""
    sets: list[set[str]] = []
    for start in range(0, len(user_ids), _USERS):
        part = user_ids[start : start + _USERS]
        replies = _replies(
            client,
            [("LRANGE", keys.ONLY.history(user_id), -cap, -1) for user_id in part],
            "reading histories",
        )
        for user_id, reply in zip(part, replies, strict=True):
            sets.append(
                {event.item_id for event in history_events(reply)}
                if _readable(user_id, reply)
                else set()
            )
            pause()
    return sets


def _replies(client: Client, commands: Sequence[tuple[str | int, ...]], what: str) -> list[Any]:
    with named_errors(what):
        pipe: Any = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
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
