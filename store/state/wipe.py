"""Deletes everything in Redis that is computed from the log, so that it can be computed again.

Counters must not remain without their positions, nor positions without their counters. So a mark is
set first and deleted last. While the mark exists the state is incomplete and ingest refuses to
start (`check`). A wipe that was interrupted is run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import redis

from core.errors import StoreError
from store.state import keys
from store.state.connection import named_errors

KEYS_PER_COMMAND = 1000
"""Keys in one UNLINK, which takes Redis some milliseconds."""


def count(client: redis.Redis) -> dict[str, int]:
    """Number of keys that `wipe` would delete, by the first word of the key.

    Raises StoreUnavailable.
    """
    with named_errors("counting what is computed from the log"):
        kinds = Counter(key.decode(errors="replace").split(":")[0] for key in _owned(client))
    return dict(sorted(kinds.items()))


def wipe(client: redis.Redis) -> None:
    """Delete these keys. Raises StoreUnavailable: run it again."""
    with named_errors("deleting what is computed from the log"):
        client.set(keys.ONLY.wipe, "1")
        batch: list[bytes] = []
        for key in _owned(client):
            batch.append(key)
            if len(batch) == KEYS_PER_COMMAND:
                client.unlink(*batch)
                batch.clear()
        client.unlink(*batch, keys.ONLY.wipe)


def interrupted(client: redis.Redis) -> bool:
    """Whether a wipe was begun and not finished. Raises StoreUnavailable."""
    with named_errors("looking for an interrupted wipe"):
        return bool(client.exists(keys.ONLY.wipe))


def check(client: redis.Redis) -> None:
    """Raises StoreError when a wipe was interrupted."""
    if interrupted(client):
        raise StoreError(
            "a rebuild that was emptying Redis was interrupted, so the state is incomplete. "
            "Run the rebuild again "
            "(`python -m streams rebuild --wipe`), then start ingest"
        )


def _owned(client: redis.Redis) -> Iterator[Any]:
    for pattern in keys.ONLY.owned:
        yield from client.scan_iter(pattern, count=KEYS_PER_COMMAND)
