"""Notes partitions whose state is incomplete: a durable note in Redis makes later starts refuse
them until Redis is rebuilt.

store/state/apply/transactions.py writes the note inside the transaction that is applied in part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import hiredis
import redis
import structlog

from core.errors import StoreCorrupt, StoreError
from store.state import keys
from store.state.apply.batches import OffsetRange
from store.state.connection import named_errors
from store.state.servers.redis_errors import of_reply

_log = structlog.get_logger(__name__)
REBUILD_ADVICE = "then run `python -m streams rebuild --wipe` with every ingest stopped"


def notes(ranges: Sequence[OffsetRange]) -> list[str]:
    """Field and value of each note that a transaction of these offsets writes if it fails."""
    return [part for offsets in ranges for part in (_field(*offsets.source), _cause(offsets))]


def check_opening(
    client: Any,
    partitions: Sequence[tuple[str, int]],
    what: str,
    commands: Sequence[tuple[str | int | bytes, ...]],
    replies: Sequence[object],
) -> None:
    """Raise a StoreError for the first error reply to a command before MULTI; nothing is applied
    then.

    A position or deletions of a foreign type are lost, and deleting the key does not bring them
    back: that is noted.
    """
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, redis.ResponseError):
            error = of_reply(what, reply, " ".join(str(part) for part in command[:2]))
            if command[0] == "HMGET" and isinstance(error, StoreCorrupt):
                note(client, partitions, f"{error}, {REBUILD_ADVICE}")
            raise error


def partial(what: str, payload: bytes, index: int, reply: Exception) -> StoreCorrupt:
    """The error for the command at `index` of the packed commands in `payload`, which failed inside
    EXEC.
    """
    reader = hiredis.Reader()
    reader.feed(payload)
    for _ in range(index):
        reader.gets()
    name, key = (part.decode(errors="replace") for part in cast("list[bytes]", reader.gets())[:2])
    return StoreCorrupt(
        f"{what}: {name} {key} answered {reply}. The transaction's other commands stand, "
        f"this one is missing. "
        f"Look at {key} (TYPE {key}) and find who else writes it, {REBUILD_ADVICE}"
    )


def note(client: Any, partitions: Iterable[tuple[str, int]], cause: str) -> None:
    """Note why `partitions` are incomplete. If this fails, the note of the transaction stays."""
    try:
        with named_errors("noting that partitions are incomplete"):
            client.hset(
                keys.of(client).halted,
                mapping={_field(topic, partition): cause for topic, partition in partitions},
            )
    except StoreError as error:
        _log.warning("halt_not_noted", error=str(error))


def check(client: Any, topic: str, partition: int) -> None:
    """Raises StoreCorrupt when the partition's state is incomplete; StoreUnavailable: retry."""
    with named_errors(f"checking whether {topic}/{partition} is complete"):
        cause: bytes | None = client.hget(keys.of(client).halted, _field(topic, partition))
    if cause is not None:
        raise StoreCorrupt(
            f"{topic}/{partition} is incomplete in Redis ({keys.of(client).halted}): "
            f"{cause.decode()}"
        )


def _field(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


def _cause(offsets: OffsetRange) -> str:
    return (
        f"a command failed inside the transaction of the offsets [{offsets.first}, "
        f"{offsets.next}), and the process died before it named the "
        f"key. Find who else writes into this Redis, {REBUILD_ADVICE}"
    )
