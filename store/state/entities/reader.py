"""Many reads of users at once over one connection, for a process that serves.

Reads that arrive while a round trip is under way leave together in the next one, as one write and
one read of the socket. Beside 16 callers a read costs the process about a third of what a pipeline
of its own would, and Redis sees one buffer instead of sixteen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

import redis
import redis.asyncio

from core.errors import StoreError, StoreUnavailable
from core.types import UserState
from store.state.entities import users
from store.state.redis_errors import of_reply
from store.state.wire import Wire

_MOST = 64
"""Users in one round trip: at the history cap of 500 that is some 2 MB, a few milliseconds of
Redis.
"""

Waiting = tuple[str, asyncio.Future[UserState]]


class UserReader:
    """Reads users' states, many callers sharing each round trip. Belongs to one event loop."""

    def __init__(self, client: redis.asyncio.Redis, cap: int, timeout_s: float) -> None:
        """`cap`: HISTORY_CAP, the latest events that a state holds; `timeout_s`: for one round
        trip, connecting included.
        """
        self._wire, self._cap = Wire(client, timeout_s), cap
        self._waiting: deque[Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def read(self, user_id: str) -> UserState:
        """The state of one user; an unknown user has no events.

        Raises StoreUnavailable, StoreCorrupt.
        """
        future: asyncio.Future[UserState] = asyncio.get_running_loop().create_future()
        self._waiting.append((user_id, future))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), name="user-reader")
        return await future

    async def close(self) -> None:
        """Stop; whoever still waits gets StoreUnavailable. The client stays its owner's."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        _fail(self._waiting, StoreUnavailable("the reader was closed"))
        self._waiting.clear()
        await self._wire.drop()

    async def _send(self) -> None:
        """Round trips until nobody waits.

        Runs in a task of its own: a caller that gives up takes nobody's answer with it.
        """
        batch: list[Waiting] = []
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                try:
                    replies = await self._round_trip([user_id for user_id, _ in batch])
                except StoreError as error:
                    # Nobody behind this batch has waited yet, but the server that did not answer it
                    # would not answer them either.
                    _fail([*batch, *self._waiting], error)
                    self._waiting.clear()
                    continue
                for number, (user_id, future) in enumerate(batch):
                    if not future.done():  # its caller may have given up
                        _resolve(
                            future,
                            user_id,
                            replies[users.REPLIES * number : users.REPLIES * (number + 1)],
                        )
        except BaseException:
            _fail(batch, StoreUnavailable("reading was interrupted"))
            raise
        finally:
            self._sender = None

    async def _round_trip(self, user_ids: list[str]) -> list[Any]:
        commands = [
            command for user_id in user_ids for command in users.commands(user_id, self._cap)
        ]
        return await self._wire.ask(f"reading {len(user_ids)} users", commands)


def _resolve(future: asyncio.Future[UserState], user_id: str, replies: list[Any]) -> None:
    try:
        # the last one is a cache: `parse` takes what is no vector for none
        for reply in replies[:-1]:
            if isinstance(reply, redis.ResponseError):
                raise of_reply(f"reading user {user_id!r}", reply)
        future.set_result(users.parse(user_id, replies))
    except StoreError as error:
        future.set_exception(error)


def _fail(waiting: Iterable[Waiting], error: StoreError) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)
