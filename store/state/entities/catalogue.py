"""Reads items from Redis (shard 0) and follows their changes.

store.state.apply.entry_applier writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from core.types import Item
from store.state import changes as streams
from store.state import keys
from store.state.connection import Client, named_errors

_CHUNK = 500
"""Items in one command, which takes Redis well under a millisecond."""

_items = msgspec.json.Decoder(Item)


class CatalogueChanges(NamedTuple):
    """Changes since a cursor.

    `cursor`: for the next call. `complete`: `items` is the whole catalogue and replaces everything
    that was read before.
    """

    cursor: str
    complete: bool
    items: list[Item]
    deleted: list[str]


def changes(client: Client, after: str = "") -> CatalogueChanges:
    """Changes of the catalogue since `after`, the cursor of an earlier call ("": everything).

    Returns the whole catalogue, marked complete, also when Redis no longer has all changes since
    then or was set back. Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the catalogue"):
        stream = keys.of(client).items_changes
        changed = streams.since(client, stream, after)
        if changed is not None:
            return CatalogueChanges(changed.cursor, False, *_read(client, changed.ids))
        cursor = streams.latest(client, stream)
        return CatalogueChanges(cursor, True, list(_all(client)), [])


def item(client: Client, item_id: str) -> Item | None:
    """One item, or None. Raises StoreUnavailable."""
    with named_errors(f"reading item {item_id!r}"):
        data: Any = client.hget(keys.of(client).items, item_id)
    return None if data is None else _items.decode(data)


def _read(client: Any, identifiers: Sequence[bytes]) -> tuple[list[Item], list[str]]:
    """The items, and the ids of deleted ones."""
    items, deleted = [], []
    for start in range(0, len(identifiers), _CHUNK):
        chunk = identifiers[start : start + _CHUNK]
        values = client.hmget(keys.of(client).items, chunk)
        for identifier, data in zip(chunk, values, strict=True):
            if data is None:
                deleted.append(identifier.decode())
            else:
                items.append(_items.decode(data))
    return items, deleted


def _all(client: Any) -> Iterator[Item]:
    seen: set[bytes] = set()
    for identifier, data in client.hscan_iter(keys.of(client).items, count=_CHUNK):
        if identifier not in seen:  # a scan may return one twice
            seen.add(identifier)
            yield _items.decode(data)
