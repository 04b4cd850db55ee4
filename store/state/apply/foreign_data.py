"""Looks for data in Redis that is no state of one's own topics."""

from __future__ import annotations

import re
from collections.abc import Iterable

from store.state import keys
from store.state.connection import Client, named_errors
from store.state.shards import by_server

_KEYS_AT_ONCE = 1000
_TAG = re.compile(r"^\{\d+\}:")
"""What keys begin with where there are several shards."""


def foreign_data(shards: Iterable[Client], own: str) -> str:
    """What Redis holds besides the state of topics whose names begin with `own`; "" if nothing.

    Keys of users and items do not name their topic: they are one's own where a position is.
    Raises StoreUnavailable.
    """
    owns_state, count = False, 0
    with named_errors("looking for foreign data"):
        for client in by_server(shards).values():
            for key in client.scan_iter(count=_KEYS_AT_ONCE):
                topic = _topic(_TAG.sub("", key.decode(errors="replace")))
                if topic is not None and not topic.startswith(own):
                    return f"the state of the topic {topic}"
                owns_state = owns_state or topic is not None
            count += client.dbsize()
    return f"{count:,} keys" if count and not owns_state else ""


def _topic(key: str) -> str | None:
    """The topic in the key of a position or a layout; None in any other key."""
    if key.startswith(layout := keys.Keys().layout("")):
        return key.removeprefix(layout)
    if key.startswith("ingest:") and key.count(":") > 1:
        return key.removeprefix("ingest:").rpartition(":")[0]
    return None
