"""How readers follow the new items: those that the live bundle does not know, with ALS factors
that the live workers write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import redis

from core.types import LiveVector
from store.state import changes as streams
from store.state import keys
from store.state.connection import named_errors
from store.state.entities.users import VECTOR_FIELDS, live_vector

_CHUNK = 500
"""Items in one round trip: some hundred KB of factors."""


class NewItemChanges(NamedTuple):
    """What happened since a cursor.

    `complete`: `factors` is all there is, forget everything else; `cursor`: ask from here next.
    """

    cursor: str
    complete: bool
    factors: dict[str, LiveVector]
    gone: list[str]


def changes(client: redis.Redis, after: str = "") -> NewItemChanges:
    """What changed among the new items since `after` (a former answer's cursor; "": everything).

    Answers everything, marked complete, also when the changes since then are no longer kept or
    Redis was set back. Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the new items"):
        news = streams.since(client, keys.NEW_ITEM_CHANGES, after)
        if news is not None:
            return NewItemChanges(news.cursor, False, *_read(client, news.ids))
        cursor = streams.latest(client, keys.NEW_ITEM_CHANGES)
        members: Any = client.zrange(keys.NEW_ITEMS, 0, -1)
        factors, _ = _read(client, members)
        return NewItemChanges(cursor, True, factors, [])


def _read(client: Any, ids: Sequence[bytes]) -> tuple[dict[str, LiveVector], list[str]]:
    """The factors of those that have some, and the others."""
    factors: dict[str, LiveVector] = {}
    gone: list[str] = []
    for item_id, reply in _replies(client, [each.decode() for each in ids]):
        vector = live_vector(reply)
        if vector is None:
            gone.append(item_id)
        else:
            factors[item_id] = vector
    return factors, gone


def _replies(client: Any, ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        pipe = client.pipeline(transaction=False)
        for item_id in chunk:
            pipe.hmget(keys.item_als(item_id), *VECTOR_FIELDS)
        yield from zip(chunk, pipe.execute(), strict=True)
