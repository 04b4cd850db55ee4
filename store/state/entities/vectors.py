"""Reads and writes what live workers compute in one shard: vectors of users, and new items.

`store.state.live_shards` has a store of each shard, and merges what they have of a new item.

All of it is a cache of the log and the bundle. Every write sets the whole value, so a repeated
write, or the same write by two workers, changes nothing. The field `as_of` of a vector is the
number of the user's events in it. These steps keep it true:

1. WATCH the state of the deletions (store.state.apply.deletions).
2. Read each user's number of events before the history. If an event is applied between the two
   reads, the vector holds one event more than its `as_of`. The stored number is then higher than
   `as_of`, so the vector is stale, never wrong.
3. MULTI, the vectors, EXEC. Nil: a user was deleted after step 1, and may return and reach the same
   number of events. Read everything again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import hiredis
import redis

from core.types import LiveVector
from store.state import keys
from store.state.connection import Client, Pipe, named_errors
from store.state.servers.redis_errors import of_reply

Command = tuple[str | int | float | bytes, ...]
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one

READ_USERS = 1_000
"""Users in one command that asks when they were read: some 0.3 ms of Redis."""
FIRST_SHARD = 0
"""The shard with the factors of new items, and the stream of their changes."""
CHANGES = 100_000
"""Changes of new items that the stream keeps. A reader that falls further behind reads everything
again.
"""


class UserHistory(NamedTuple):
    """A user's number of events, and the lines of the latest of them, oldest first."""

    events: int
    history: list[bytes]


class ItemWeight(NamedTuple):
    """The weight of all events of a user with a new item."""

    item_id: str
    user_id: str
    weight: float


class FactorsStatus(NamedTuple):
    """A new item: the model and the number of users of its factors, and the users in its list.

    "" and 0: it has no factors.
    """

    made_with: str
    as_of: int
    users: int


class LiveStore:
    """Reads and writes of one shard over one connection, for one thread at a time.

    Every method raises StoreUnavailable or StoreCorrupt; the next call opens another connection.
    """

    def __init__(self, client: Client, history_cap: int, item_users: int) -> None:
        """`item_users`: YOUNG_ITEM_USERS, the most users in an item's list."""
        self._client, self._cap, self._item_users = client, history_cap, item_users
        self._keys = keys.of(client)
        self._connection: Pipe | None = None

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, user_ids: Sequence[str]) -> list[UserHistory]:
        """Steps 1 and 2: the users' current histories, in the same order."""
        commands: list[Command] = [("WATCH", self._keys.deletions)]
        for user_id in user_ids:
            commands.append(("HGET", self._keys.user(user_id), "events"))
            commands.append(("LRANGE", self._keys.history(user_id), -self._cap, -1))
        replies = self._ask(f"reading {len(user_ids)} users to fold in", commands)
        return [
            UserHistory(int(events or 0), lines)
            for events, lines in zip(replies[1::2], replies[2::2], strict=True)
        ]

    def write(self, vectors: Mapping[str, LiveVector], weights: Iterable[ItemWeight] = ()) -> bool:
        """Step 3, for the users of the last `read`. False: read again.

        `vectors`: by user id; `weights`: of the users' events with new items.
        """
        if self._connection is None:  # the WATCH ended with the connection
            return False
        commands: list[Command] = [("MULTI",)]
        commands += [
            _set_vector(self._keys.user_als(user_id), vector) for user_id, vector in vectors.items()
        ]
        now = round(time.time(), 3)
        for item_id, user_id, weight in weights:
            item_users = self._keys.item_users(item_id)
            commands.append(("ZADD", item_users, weight, user_id))
            commands.append(("ZREMRANGEBYRANK", item_users, 0, -self._item_users - 1))
            commands.append(("ZADD", self._keys.new_items, now, item_id))
        commands.append(("EXEC",))
        return self._ask(f"writing {len(vectors)} vectors", commands)[-1] is not None

    def read_at(self, user_ids: Sequence[str]) -> dict[str, float]:
        """When each user was read last, in seconds since 1970; 0 without a note of it."""
        replies = self._ask(
            "reading which users are read",
            [
                ("ZMSCORE", self._keys.users_read, *user_ids[start : start + READ_USERS])
                for start in range(0, len(user_ids), READ_USERS)
            ],
        )
        times = (float(at or 0) for reply in replies for at in reply)
        return dict(zip(user_ids, times, strict=True))

    def read_since(self, since: float) -> dict[str, float]:
        """The users noted since `since`, and when (seconds since 1970), the latest first.

        READ_USERS at most.
        """
        command = ("ZRANGE", self._keys.users_read, "+inf", since, "BYSCORE", "REV")
        limits = ("LIMIT", 0, READ_USERS, "WITHSCORES")
        return _scores(self._ask("reading who is read", [(*command, *limits)])[0])

    def not_fresh(self, user_ids: Sequence[str], made_with: str) -> list[str]:
        """Those of the users who have no vector of `made_with` that counts all of their events."""
        commands: list[Command] = []
        for user_id in user_ids:
            commands.append(("HGET", self._keys.user(user_id), "events"))
            commands.append(("HMGET", self._keys.user_als(user_id), "made_with", "as_of"))
        replies = self._ask("comparing vectors with events", commands)
        return [
            user_id
            for user_id, events, vector in zip(user_ids, replies[::2], replies[1::2], strict=True)
            if events is not None and vector != [made_with.encode(), events]
        ]

    def vectors(self, user_ids: Sequence[str], made_with: str) -> dict[str, bytes]:
        """User id -> vector, of the users who have one of the model `made_with`, stale or not."""
        replies = self._ask(
            "reading vectors",
            [
                ("HMGET", self._keys.user_als(user_id), "made_with", "vector")
                for user_id in user_ids
            ],
        )
        model = made_with.encode()
        return {
            user_id: vector
            for user_id, (vector_model, vector) in zip(user_ids, replies, strict=True)
            if vector_model == model and vector
        }

    def item_users(self, item_ids: Sequence[str]) -> list[dict[str, float]]:
        """The shard's users of each new item with their weights."""
        commands: list[Command] = [
            ("ZRANGE", self._keys.item_users(item_id), 0, -1, "WITHSCORES") for item_id in item_ids
        ]
        return [_scores(reply) for reply in self._ask("reading new items", commands)]

    def user_counts(self, item_ids: Sequence[str]) -> list[int]:
        """The number of the shard's users in the list of each new item."""
        commands: list[Command] = [
            ("ZCARD", self._keys.item_users(item_id)) for item_id in item_ids
        ]
        return self._ask("counting users of new items", commands)

    def new_items(self) -> dict[str, float]:
        """New item -> time of the latest interaction of a user of the shard, oldest first."""
        command = ("ZRANGE", self._keys.new_items, 0, -1, "WITHSCORES")
        return _scores(self._ask("reading new items", [command])[0])

    def drop_users(self, item_id: str, user_ids: Collection[str]) -> None:
        """Remove deleted users of the shard from the list of an item."""
        if user_ids:
            command = ("ZREM", self._keys.item_users(item_id), *user_ids)
            self._ask("removing users of new items", [command])

    def forget_items(self, item_ids: Sequence[str]) -> None:
        """Delete the shard's lists of items, and in shard 0 their factors."""
        if not item_ids:
            return
        commands: list[Command] = [("UNWATCH",), ("MULTI",)]
        for item_id in item_ids:
            commands.append(("DEL", self._keys.item_users(item_id)))
            commands.append(("ZREM", self._keys.new_items, item_id))
            if self._keys.shard == FIRST_SHARD:
                commands.append(("DEL", self._keys.item_als(item_id)))
                commands.append(self._changed(item_id))
        commands.append(("EXEC",))
        self._ask(f"forgetting {len(item_ids)} new items", commands)

    def write_items(self, factors: Mapping[str, LiveVector]) -> None:
        """Shard 0: write the factors by item id, and add the items to the stream of changes.

        An item with factors is among the new items of shard 0, with the time 0 where all of its
        users are in other shards, or it was forgotten meanwhile.
        """
        if not factors:
            return
        commands: list[Command] = [("UNWATCH",), ("MULTI",)]
        for item_id, vector in factors.items():
            commands.append(_set_vector(self._keys.item_als(item_id), vector))
            commands.append(("ZADD", self._keys.new_items, "NX", 0, item_id))
            commands.append(self._changed(item_id))
        commands.append(("EXEC",))
        self._ask(f"writing {len(factors)} new items", commands)

    def factors_status(self, item_ids: Sequence[str]) -> list[FactorsStatus]:
        """Shard 0: the origin of each new item's factors, and the number of the shard's users."""
        commands: list[Command] = []
        for item_id in item_ids:
            commands.append(("HMGET", self._keys.item_als(item_id), "made_with", "as_of"))
            commands.append(("ZCARD", self._keys.item_users(item_id)))
        replies = self._ask("reading the factors of new items", commands)
        return [
            FactorsStatus((made_with or b"").decode(), int(as_of or 0), users)
            for (made_with, as_of), users in zip(replies[::2], replies[1::2], strict=True)
        ]

    def _changed(self, item_id: str) -> Command:
        stream = self._keys.new_item_changes
        return ("XADD", stream, "MAXLEN", "~", CHANGES, "*", "item", item_id)

    def _ask(self, what: str, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command. Raises StoreUnavailable, StoreCorrupt."""
        if not commands:
            return []
        try:
            with named_errors(what):
                if self._connection is None:
                    self._connection = Pipe(self._client)
                self._connection.send(b"".join([_pack(command) for command in commands]))
                replies = self._connection.receive(len(commands))
            inside = (
                replies[-1] if commands[-1] == ("EXEC",) and isinstance(replies[-1], list) else ()
            )
            for reply in (*replies, *inside):
                if isinstance(reply, redis.ResponseError):
                    raise of_reply(what, reply)
        except BaseException:
            self.close()  # ends the WATCH, too
            raise
        return replies


def _scores(reply: list[Any]) -> dict[str, float]:
    """Member -> score: RESP3 replies with pairs, RESP2 with a flat list."""
    if reply and isinstance(reply[0], list):
        return {member.decode(): float(score) for member, score in reply}
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return {member.decode(): float(score) for member, score in pairs}


def _set_vector(key: str, vector: LiveVector) -> Command:
    return (
        "HSET",
        key,
        "version",
        vector.version,
        "made_with",
        vector.made_with,
        "as_of",
        vector.as_of,
        "vector",
        vector.vector,
    )
