"""Reads single entries of the catalogue and of profiles for a process that serves."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import redis

from core.types import Item, User
from store.state import keys
from store.state.connection import AsyncClient, named_errors
from store.state.servers.async_pipe import AsyncPipe, Command
from store.state.servers.redis_errors import of_reply
from store.state.shards import AsyncShards, shard_of_user

_items = msgspec.json.Decoder(Item)
_users = msgspec.json.Decoder(User)


class EntryReader:
    """Reads the latest applied entries. Belongs to one event loop.

    It goes on while the slot of a shard moves to another node. Only the listing waits until then.
    """

    def __init__(self, shards: AsyncShards, timeout_s: float) -> None:
        """`timeout_s`: for one round trip, including the connect. The caller closes the clients."""
        self._shards = tuple(_ShardEntries(client, timeout_s) for client in shards)
        self._items: AsyncClient = shards.first

    async def item(self, item_id: str) -> Item | None:
        """One item, or None. Raises StoreError."""
        command = ("HGET", keys.of(self._items).items, item_id)
        data = await self._shards[0].ask(f"reading item {item_id!r}", command)
        return None if data is None else _items.decode(data)

    async def user(self, user_id: str) -> User | None:
        """What a user declared, or None. Raises StoreError."""
        shard = self._shards[shard_of_user(user_id, len(self._shards))]
        command = ("GET", shard.keys.profile(user_id))
        data = await shard.ask(f"reading the profile of user {user_id!r}", command)
        return None if data is None else _users.decode(data)

    async def items(self, cursor: int, count: int) -> tuple[int, list[Item]]:
        """About `count` items from `cursor` on (0: the first), and the next cursor (0: the end).

        Every item that is in the catalogue during the whole listing is listed, some perhaps twice.
        Raises StoreUnavailable.
        """
        with named_errors("listing the catalogue"):
            reply: Any = await self._items.hscan(keys.of(self._items).items, cursor, count=count)
        following, page = reply
        return int(following), [_items.decode(data) for data in page.values()]

    async def close(self) -> None:
        """Drop the connections."""
        for shard in self._shards:
            await shard.close()


class _ShardEntries:
    """Reads the entries of one shard over one connection, one after the other."""

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        self.keys = keys.of(client)
        self._pipe = AsyncPipe(client, timeout_s)
        self._turn = asyncio.Lock()

    async def ask(self, what: str, command: Command) -> Any:
        """The reply to one command. Raises StoreError, which says `what` failed."""
        async with self._turn:
            [reply] = await self._pipe.ask(what, [command])
        if isinstance(reply, redis.ResponseError):
            raise of_reply(what, reply)
        return reply

    async def close(self) -> None:
        """Drop the connection."""
        await self._pipe.drop()
