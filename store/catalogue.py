"""Items and profiles in Redis: what a batch of catalogue messages does, and how readers follow the items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import redis

from core.codec import encode_json
from core.types import Item, User
from store import changes as streams
from store import keys
from store.apply import Batch, Command, moving
from store.connection import named_errors

_CHANGES = 100_000
"""Changes kept for readers that follow; one that falls further behind reads everything again."""
_CHUNK = 500
"""Items in one command: it holds Redis for well under a millisecond."""

_items = msgspec.json.Decoder(Item)


class Deletion(NamedTuple):
    """A null message: the item or user `identifier` is gone since `broker_time` (seconds)."""

    identifier: str
    broker_time: float


class CatalogueChanges(NamedTuple):
    """What happened since a cursor. `complete`: `items` is the whole catalogue, forget everything else; `cursor`: ask from here next."""

    cursor: str
    complete: bool
    items: list[Item]
    deleted: list[str]


def item_batch(topic: str, partition: int, first: int, next_: int, entries: Sequence[Item | Deletion]) -> Batch:
    """The batch that writes and deletes items; the last entry of an item wins."""
    commands: list[Command] = []
    for entry in entries:
        if isinstance(entry, Item):
            identifier = entry.item_id
            commands.append(("HSET", keys.ITEMS, identifier, encode_json(entry)))
        else:
            identifier = entry.identifier
            commands.append(("HDEL", keys.ITEMS, identifier))
        commands.append(("XADD", keys.ITEMS_CHANGES, "MAXLEN", "~", str(_CHANGES), "*", "item", identifier))
    return Batch(topic, partition, first, next_, [], None, *moving(topic, partition, next_, commands), [])


def user_batch(
    topic: str, partition: int, first: int, next_: int, entries: Sequence[User | Deletion], sets_of_users: Sequence[str] = ()
) -> Batch:
    """The batch that writes profiles; a deletion removes every key of the user and bars older interactions from counting.

    `sets_of_users`: other sorted sets that a deleted user is removed from.
    """
    commands: list[Command] = []
    for entry in entries:
        if isinstance(entry, User):
            commands.append(("SET", keys.profile(entry.user_id), encode_json(entry)))
        else:
            commands.append(("DEL", *keys.all_of_user(entry.identifier)))
            commands.extend([("ZREM", key, entry.identifier) for key in sets_of_users])
            commands.append(("HSET", keys.USERS_DELETED, entry.identifier, repr(entry.broker_time)))
            commands.append(("INCR", keys.USERS_DELETED_VERSION))
    return Batch(topic, partition, first, next_, [], None, *moving(topic, partition, next_, commands), [])


def changes(client: redis.Redis, after: str = "") -> CatalogueChanges:
    """What changed in the catalogue since `after` (a former answer's cursor; "": everything).

    Answers everything, marked complete, also when the changes since then are no longer kept or Redis was set back.
    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the catalogue"):
        news = streams.since(client, keys.ITEMS_CHANGES, after)
        if news is not None:
            return CatalogueChanges(news.cursor, False, *_read(client, news.ids))
        cursor = streams.now(client, keys.ITEMS_CHANGES)
        return CatalogueChanges(cursor, True, list(_all(client)), [])


def item(client: redis.Redis, item_id: str) -> Item | None:
    """One item, or None. Raises StoreUnavailable."""
    with named_errors(f"reading item {item_id!r}"):
        data: Any = client.hget(keys.ITEMS, item_id)
    return None if data is None else _items.decode(data)


def _read(client: Any, identifiers: Sequence[bytes]) -> tuple[list[Item], list[str]]:
    """The items, and the ids of those that are gone."""
    items, deleted = [], []
    for start in range(0, len(identifiers), _CHUNK):
        chunk = identifiers[start : start + _CHUNK]
        for identifier, data in zip(chunk, client.hmget(keys.ITEMS, chunk), strict=True):
            if data is None:
                deleted.append(identifier.decode())
            else:
                items.append(_items.decode(data))
    return items, deleted


def _all(client: Any) -> Iterator[Item]:
    seen: set[bytes] = set()
    for identifier, data in client.hscan_iter(keys.ITEMS, count=_CHUNK):
        if identifier not in seen:  # a scan may answer one twice
            seen.add(identifier)
            yield _items.decode(data)
