"""Records in Redis which bundle was announced and how the last retrain went.

The files of the registry are authoritative. All of it is in shard 0, whose client the functions
take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from store.state import keys
from store.state.connection import Client, named_errors

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
"""Values of `status`.

`died` is never written: a run has it that is recorded as running and holds no lease.
"""
ANSWERS = "answers"
"""Field: JSON of {partition: end}. The run answers the requests below these offsets: they were made
before it began.
"""

GATE = "gate"
"""Field: JSON of the gate's verdict, with the metrics of the new bundle and of the live one."""


def record(client: Client, fields: Mapping[str, str]) -> None:
    """Replace the fields of `retrain:last`. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors("recording the retrain"):
        pipe: Any = client.pipeline(transaction=True)
        pipe.delete(keys.of(client).retrain_last)
        pipe.hset(keys.of(client).retrain_last, mapping=dict(fields))
        pipe.execute()


def last(client: Client) -> dict[str, str]:
    """The fields of the last retrain, which may still run; empty before the first.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the last retrain"):
        pipe: Any = client.pipeline(transaction=True)
        pipe.hgetall(keys.of(client).retrain_last)
        pipe.get(keys.of(client).lease(LEASE))
        values, holder = pipe.execute()
    fields = {name.decode(): value.decode() for name, value in values.items()}
    if fields.get("status") == RUNNING and fields.get("holder", "") != (holder or b"").decode():
        fields["status"] = DIED
    return fields


def answered(fields: Mapping[str, str], partition: int, offset: int, end: int) -> bool:
    """Whether the run with these `fields` answers the request at `partition` and `offset`.

    A run that ended before its decision (failed, interrupted, died) answers none. `end`: the end of
    the log; an answered offset beyond it belongs to another topic.
    """
    if fields.get("status") not in (PUBLISHED, REFUSED):
        return False
    answers: dict[str, int] = json.loads(fields.get(ANSWERS, "{}"))
    return offset < answers.get(str(partition), 0) <= end


def announce(client: Client, version: str) -> None:
    """Announce `version` as the live bundle. Raises StoreUnavailable."""
    with named_errors("announcing the bundle"):
        client.set(keys.of(client).model_current, version)
