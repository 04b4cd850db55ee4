"""Looks for data in Redis that is no state of one's own topics."""

from __future__ import annotations

import redis

from store.state import keys
from store.state.connection import named_errors

_KEYS_AT_ONCE = 1000


def foreign_data(client: redis.Redis, own: str) -> str:
    """What Redis holds besides the state of topics whose names begin with `own`; "" if nothing.

    Keys of users and items do not name their topic: they are one's own where a position is.
    Raises StoreUnavailable.
    """
    owns_state = False
    with named_errors("looking for foreign data"):
        for key in client.scan_iter(count=_KEYS_AT_ONCE):
            topic = _topic(key.decode(errors="replace"))
            if topic is not None and not topic.startswith(own):
                return f"the state of the topic {topic}"
            owns_state = owns_state or topic is not None
        count = client.dbsize()
    return f"{count:,} keys" if count and not owns_state else ""


def _topic(key: str) -> str | None:
    """The topic in the key of a position or a layout; None in any other key."""
    if key.startswith(layout := keys.ONLY.layout("")):
        return key.removeprefix(layout)
    if key.startswith("ingest:") and key.count(":") > 1:
        return key.removeprefix("ingest:").rpartition(":")[0]
    return None
