"""Streams of ids that changed, which readers follow by a cursor."""

from __future__ import annotations

from typing import Any, NamedTuple


class News(NamedTuple):
    """The ids that changed since a cursor, each once, and the cursor to ask from next."""

    cursor: str
    ids: list[bytes]


def since(client: Any, stream: str, after: str) -> News | None:
    """What changed since `after`, or None when that cannot be told completely: read everything,
    from `now` on.
    """
    # The entry at the cursor itself must still be there: if not, it was trimmed or Redis was set
    # back.
    entries = client.xrange(stream, min=after) if after else None
    if not entries or entries[0][0].decode() != after:
        return None
    return News(
        entries[-1][0].decode(),
        list(dict.fromkeys(next(iter(fields.values())) for _, fields in entries[1:])),
    )


def now(client: Any, stream: str) -> str:
    """A cursor at the latest change; "" before the first.

    Take it before you read everything: a change between is read twice, never missed.
    """
    latest = client.xrevrange(stream, count=1)
    return latest[0][0].decode() if latest else ""
