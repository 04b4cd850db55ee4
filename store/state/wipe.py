"""Deletes everything in Redis that is made from the log, so that it can be made again.

The positions must never outlive the counters they belong to, nor the counters the positions. So a
mark is set first and deleted last: while it is there Redis is neither whole nor empty, and nobody
may count into it (`check`). A wipe that was killed is run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import redis

from core.errors import StoreError
from store.state import keys
from store.state.connection import named_errors

_AT_ONCE = 1000
"""Keys in one UNLINK: some milliseconds of Redis."""


def count(client: redis.Redis) -> dict[str, int]:
    """Keys that `wipe` would delete, by the first word of their names. Raises StoreUnavailable."""
    with named_errors("counting what is made from the log"):
        kinds = Counter(key.decode(errors="replace").split(":")[0] for key in _owned(client))
    return dict(sorted(kinds.items()))


def wipe(client: redis.Redis) -> None:
    """Delete them all. Raises StoreUnavailable: run it again."""
    with named_errors("deleting what is made from the log"):
        client.set(keys.WIPE, "1")
        batch: list[bytes] = []
        for key in _owned(client):
            batch.append(key)
            if len(batch) == _AT_ONCE:
                client.unlink(*batch)
                batch.clear()
        client.unlink(*batch, keys.WIPE)


def interrupted(client: redis.Redis) -> bool:
    """Whether a wipe was begun and not finished. Raises StoreUnavailable."""
    with named_errors("looking for an interrupted wipe"):
        return bool(client.exists(keys.WIPE))


def check(client: redis.Redis) -> None:
    """Raises StoreError when a wipe was interrupted."""
    if interrupted(client):
        raise StoreError(
            "Redis was being emptied by a rebuild that was interrupted, so it holds "
            "neither all nor nothing. Run the rebuild again "
            "(`python -m streams rebuild --wipe`), then start ingest"
        )


def _owned(client: redis.Redis) -> Iterator[Any]:
    for pattern in keys.OWNED:
        yield from client.scan_iter(pattern, count=_AT_ONCE)
