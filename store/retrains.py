"""What Redis knows of retrains: which bundle was announced, and how the last run went. The files stay the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from store import keys
from store.connection import named_errors

LEASE = "retrain"
"""Name of the lease that one retrain holds at a time."""


def record(client: redis.Redis, fields: Mapping[str, str]) -> None:
    """Replace what `retrain:last` says. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors("recording the retrain"):
        pipe: Any = client.pipeline(transaction=True)
        pipe.delete(keys.RETRAIN_LAST)
        pipe.hset(keys.RETRAIN_LAST, mapping=dict(fields))
        pipe.execute()


def last(client: redis.Redis) -> dict[str, str]:
    """How the last retrain went; empty before the first. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors("reading the last retrain"):
        fields: Any = client.hgetall(keys.RETRAIN_LAST)
    return {name.decode(): value.decode() for name, value in fields.items()}


def announce(client: redis.Redis, version: str) -> None:
    """Say that `version` is live. Raises StoreUnavailable."""
    with named_errors("announcing the bundle"):
        client.set(keys.MODEL_CURRENT, version)
