"""Reads the ALS factors of new items, which the live workers write, and follows their changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from core.types import LiveVector
from store.state import changes as streams
from store.state import keys
from store.state.connection import Client, named_errors
from store.state.entities.users import VECTOR_FIELDS, live_vector

_CHUNK = 500
"""Items in one round trip: some hundred KB of factors."""


class NewItemChanges(NamedTuple):
    """Changes since a cursor.

    `cursor`: for the next call. `complete`: `factors` has every new item with factors and replaces
    everything that was read before.
    """

    cursor: str
    complete: bool
    factors: dict[str, LiveVector]
    gone: list[str]


def changes(client: Client, after: str = "") -> NewItemChanges:
    """Changes of the new items since `after`, the cursor of an earlier call ("": everything).

    `client`: of shard 0, whose `items:young` names every item with factors, wherever its users are.

    Returns every new item, marked complete, also when Redis no longer has all changes since then or
    was set back. Raises StoreUnavailable, StoreCorrupt.
    """
    names = keys.of(client)
    with named_errors("reading the new items"):
        changed = streams.since(client, names.new_item_changes, after)
        if changed is not None:
            return NewItemChanges(changed.cursor, False, *_read(client, changed.ids))
        cursor = streams.latest(client, names.new_item_changes)
        members: Any = client.zrange(names.new_items, 0, -1)
        factors, _ = _read(client, members)
        return NewItemChanges(cursor, True, factors, [])


def _read(client: Any, ids: Sequence[bytes]) -> tuple[dict[str, LiveVector], list[str]]:
    """The factors of the items that have some, and the ids of the others."""
    factors: dict[str, LiveVector] = {}
    gone: list[str] = []
    for item_id, reply in _replies(client, [item_id.decode() for item_id in ids]):
        vector = live_vector(reply)
        if vector is None:
            gone.append(item_id)
        else:
            factors[item_id] = vector
    return factors, gone


def _replies(client: Any, ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    names = keys.of(client)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        pipe = client.pipeline(transaction=False)
        for item_id in chunk:
            pipe.hmget(names.item_als(item_id), *VECTOR_FIELDS)
        yield from zip(chunk, pipe.execute(), strict=True)
