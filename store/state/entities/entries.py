"""Reads single entries of the catalogue and of profiles for a process that serves."""

from __future__ import annotations

from typing import Any

import msgspec

from core.types import Item, User
from store.state import keys
from store.state.connection import AsyncClient, named_errors
from store.state.shards import AsyncShards

_items = msgspec.json.Decoder(Item)
_users = msgspec.json.Decoder(User)


class EntryReader:
    """Reads the latest applied entries. Belongs to one event loop."""

    def __init__(self, shards: AsyncShards) -> None:
        """The caller closes the clients."""
        self._shards = shards
        self._items: AsyncClient = shards.first

    async def item(self, item_id: str) -> Item | None:
        """One item, or None. Raises StoreUnavailable."""
        with named_errors(f"reading item {item_id!r}"):
            data: Any = await self._items.hget(keys.of(self._items).items, item_id)
        return None if data is None else _items.decode(data)

    async def user(self, user_id: str) -> User | None:
        """What a user declared, or None. Raises StoreUnavailable."""
        client = self._shards.of_user(user_id)
        with named_errors(f"reading the profile of user {user_id!r}"):
            data: Any = await client.get(keys.of(client).profile(user_id))
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
