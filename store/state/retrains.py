"""What Redis knows of retrains: which bundle was announced, and how the last run went.

The files stay the truth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from store.state import keys
from store.state.connection import named_errors

LEASE = "retrain"
"""Name of the lease that one retrain holds at a time."""
RUNNING, PUBLISHED, REFUSED, FAILED, INTERRUPTED, DIED = (
    "running",
    "published",
    "refused",
    "failed",
    "interrupted",
    "died",
)
"""What `status` says.

`died` is never written: it is what a run is called that says running and holds no lease.
"""
ANSWERS = "answers"
"""Field: JSON of {partition: end}; the requests below were made before the run began, and are
answered by it.
"""


def record(client: redis.Redis, fields: Mapping[str, str]) -> None:
    """Replace what `retrain:last` says. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors("recording the retrain"):
        pipe: Any = client.pipeline(transaction=True)
        pipe.delete(keys.RETRAIN_LAST)
        pipe.hset(keys.RETRAIN_LAST, mapping=dict(fields))
        pipe.execute()


def last(client: redis.Redis) -> dict[str, str]:
    """How the last retrain went or goes; empty before the first.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the last retrain"):
        pipe: Any = client.pipeline(transaction=True)
        pipe.hgetall(keys.RETRAIN_LAST)
        pipe.get(keys.lease(LEASE))
        found, holder = pipe.execute()
    fields = {name.decode(): value.decode() for name, value in found.items()}
    if fields.get("status") == RUNNING and fields.get("holder", "") != (holder or b"").decode():
        fields["status"] = DIED
    return fields


def answered(fields: Mapping[str, str], partition: int, offset: int, end: int) -> bool:
    """Whether the run that `fields` tells of answers the request at `partition` and `offset`, in a
    log that ends at `end`.

    A run that ended before it decided (failed, interrupted, died) answers nothing. Ends beyond the
    log's belong to another topic.
    """
    if fields.get("status") not in (PUBLISHED, REFUSED):
        return False
    answers: dict[str, int] = json.loads(fields.get(ANSWERS, "{}"))
    return offset < answers.get(str(partition), 0) <= end


def announce(client: redis.Redis, version: str) -> None:
    """Say that `version` is live. Raises StoreUnavailable."""
    with named_errors("announcing the bundle"):
        client.set(keys.MODEL_CURRENT, version)
