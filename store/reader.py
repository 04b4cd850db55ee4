"""Many reads of users at once over one connection, for a process that serves.

Reads that arrive while a round trip is under way leave together in the next one. Beside 16 callers this halves what a read
costs the process against one pipeline each, and Redis sees one command buffer instead of sixteen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import redis
import redis.asyncio

from core.errors import StoreError, StoreUnavailable
from core.types import UserState
from store import users
from store.connection import named_errors, of_reply

_MOST = 64
"""Users in one round trip: at the history cap of 500 that is some 2 MB, a few milliseconds of Redis."""


class UserReader:
    """Reads users' states, many callers sharing each round trip. Belongs to one event loop."""

    def __init__(self, client: redis.asyncio.Redis, cap: int) -> None:
        """`cap`: HISTORY_CAP, the latest events that a state holds."""
        self._client, self._cap = client, cap
        self._waiting: deque[tuple[str, asyncio.Future[UserState]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def read(self, user_id: str) -> UserState:
        """The state of one user; an unknown user has no events. Raises StoreUnavailable, StoreCorrupt."""
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

    async def _send(self) -> None:
        """Round trips until nobody waits. Runs in a task of its own: a caller that gives up takes nobody's answer with it."""
        batch: list[tuple[str, asyncio.Future[UserState]]] = []
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                try:
                    replies = await self._round_trip([user_id for user_id, _ in batch])
                except StoreError as error:
                    # Nobody behind this batch has waited yet, but the server that did not answer it would not answer them either.
                    _fail([*batch, *self._waiting], error)
                    self._waiting.clear()
                    continue
                for number, (user_id, future) in enumerate(batch):
                    if not future.done():  # its caller may have given up
                        self._resolve(future, user_id, replies[3 * number : 3 * number + 3])
        except BaseException:
            _fail(batch, StoreUnavailable("reading was interrupted"))
            raise
        finally:
            self._sender = None

    async def _round_trip(self, user_ids: list[str]) -> list[Any]:
        with named_errors(f"reading {len(user_ids)} users"):
            pipe = self._client.pipeline(transaction=False)
            for user_id in user_ids:
                for command in users.commands(user_id, self._cap):
                    pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies

    @staticmethod
    def _resolve(future: asyncio.Future[UserState], user_id: str, replies: list[Any]) -> None:
        try:
            for reply in replies:
                if isinstance(reply, redis.ResponseError):
                    raise of_reply(f"reading user {user_id!r}", reply)
            future.set_result(users.parse(user_id, replies))
        except StoreError as error:
            future.set_exception(error)


def _fail(waiting: list[tuple[str, asyncio.Future[UserState]]] | deque[tuple[str, asyncio.Future[UserState]]], error: StoreError) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)
