"""Reads the streams of changed ids, which readers follow by a cursor."""

from __future__ import annotations

from typing import Any, NamedTuple


class Changes(NamedTuple):
    """The distinct ids that changed since a cursor, and the cursor for the next call."""

    cursor: str
    ids: list[bytes]


def since(client: Any, stream: str, after: str) -> Changes | None:
    """The ids that changed since `after`; None when the stream no longer has all of them.

    After None, take a cursor with `latest` and read everything.
    """
    # without the entry at the cursor, the stream was trimmed or Redis was set back
    entries = client.xrange(stream, min=after) if after else None
    if not entries or entries[0][0].decode() != after:
        return None
    return Changes(
        entries[-1][0].decode(),
        list(dict.fromkeys(next(iter(fields.values())) for _, fields in entries[1:])),
    )


def latest(client: Any, stream: str) -> str:
    """The cursor at the latest change; "" before the first.

    Call it before reading everything: a change in between is then read twice, and never missed.
    """
    entries = client.xrevrange(stream, count=1)
    return entries[0][0].decode() if entries else ""
