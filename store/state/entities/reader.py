"""Reads many users at the same time over one connection to each shard, for a process that serves.

Reads that arrive during a round trip share the next one, as one write and one read of the socket.
With 16 callers a read takes about a third of the CPU time of a pipeline for each caller, and Redis
reads one buffer instead of sixteen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable
from typing import Any

import redis

from core.errors import StoreError, StoreUnavailable
from core.types import UserState
from store.state import keys
from store.state.connection import AsyncClient
from store.state.entities import users
from store.state.servers.async_pipe import AsyncPipe
from store.state.servers.redis_errors import of_reply
from store.state.shards import AsyncShards, shard_of_user

_MOST = 64
"""Users in one round trip: about 2 MB at a history cap of 500, a few milliseconds of Redis."""

Waiting = tuple[str, asyncio.Future[UserState]]


class UserReader:
    """Reads users' states; many callers share each round trip. Belongs to one event loop.

    A shard that does not answer fails only the reads of its users.
    """

    def __init__(self, shards: AsyncShards, cap: int, timeout_s: float) -> None:
        """`cap`: HISTORY_CAP, the most events in a state; `timeout_s`: for a round trip, including
        the connect. The caller closes the clients.
        """
        self._shards = tuple(_ShardReader(client, cap, timeout_s) for client in shards)

    def read(self, user_id: str) -> Awaitable[UserState]:
        """The state of one user; an unknown user has no events.

        Raises StoreUnavailable, StoreCorrupt.
        """
        return self._shards[shard_of_user(user_id, len(self._shards))].read(user_id)

    async def close(self) -> None:
        """Stop; waiting callers get StoreUnavailable."""
        for shard in self._shards:
            await shard.close()


class _ShardReader:
    """Reads the users of one shard."""

    def __init__(self, client: AsyncClient, cap: int, timeout_s: float) -> None:
        self._keys, self._cap = keys.of(client), cap
        self._pipe = AsyncPipe(client, timeout_s)
        self._waiting: deque[Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def read(self, user_id: str) -> UserState:
        """As `UserReader.read`."""
        future: asyncio.Future[UserState] = asyncio.get_running_loop().create_future()
        self._waiting.append((user_id, future))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), name="user-reader")
        return await future

    async def close(self) -> None:
        """As `UserReader.close`."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        _fail(self._waiting, StoreUnavailable("the reader was closed"))
        self._waiting.clear()
        await self._pipe.drop()

    async def _send(self) -> None:
        """Make round trips until no caller waits.

        Runs in its own task, so that a cancelled caller does not cancel the reads of the others.
        """
        batch: list[Waiting] = []
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                try:
                    replies = await self._round_trip([user_id for user_id, _ in batch])
                except StoreError as error:
                    # the callers behind this batch fail, too: the server would not answer them
                    _fail([*batch, *self._waiting], error)
                    self._waiting.clear()
                    continue
                for number, (user_id, future) in enumerate(batch):
                    if not future.done():  # its caller may be cancelled
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
            command
            for user_id in user_ids
            for command in users.commands(self._keys, user_id, self._cap)
        ]
        return await self._pipe.ask(f"reading {len(user_ids)} users", commands)


def _resolve(future: asyncio.Future[UserState], user_id: str, replies: list[Any]) -> None:
    try:
        # the last one is a cache: `parse` reads an error there as no vector
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
