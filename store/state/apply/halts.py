"""Notes partitions whose state is incomplete: a durable note in Redis makes later starts refuse
them until Redis is rebuilt.

Redis does not undo a transaction when one command inside EXEC fails (a key of a foreign type, a
permission revoked just then): the other commands and the position stand. The note is part of the
same transaction, so no crash comes between the two:

1. The first command of the transaction stores the server's count of error replies.
2. The commands and the positions.
3. The last command compares the count. No other client's command runs inside EXEC, so a larger
   count means that a command of step 2 failed. It then writes the offsets into `ingest:halted`. The
   process that reads the replies adds the name of the key, if it still runs.

Steps 1 and 3 are scripts: two in each transaction, whatever its size (`redis-cli INFO commandstats`
shows cmdstat_eval beside cmdstat_exec).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import hiredis
import redis
import structlog

from core.errors import StoreCorrupt, StoreError, StoreMisconfigured
from store.state import keys
from store.state.apply.batches import OffsetRange
from store.state.connection import named_errors
from store.state.redis_errors import of_reply

_log = structlog.get_logger(__name__)
# its own type says tuples of one
_pack = cast("Callable[[tuple[str, ...]], bytes]", hiredis.pack_command)

_ERRORS = "string.match(redis.call('INFO', 'stats'), 'total_error_replies:(%d+)')"
_COUNT = f"redis.call('HSET', KEYS[1], 'errors', {_ERRORS})"
_COMPARE = (
    f"if redis.call('HGET', KEYS[1], 'errors') ~= {_ERRORS} then "
    "for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end end"
)
GUARDS = 2
"""Replies of `guarded` in addition to those of the payload: one before them, one after."""

REBUILD_ADVICE = "then run `python -m streams rebuild --wipe` with every ingest stopped"


def guarded(ranges: Sequence[OffsetRange], payload: bytes) -> bytes:
    """The packed commands of `payload`, for inside MULTI and EXEC, between steps 1 and 3.

    It has GUARDS more replies than the payload.
    """
    counter = keys.position(*ranges[0].source)
    notes = [part for offsets in ranges for part in (_field(*offsets.source), _cause(offsets))]
    return b"".join(
        [
            _pack(("EVAL", _COUNT, "1", counter)),
            payload,
            _pack(("EVAL", _COMPARE, "2", counter, keys.INGEST_HALTED, *notes)),
        ]
    )


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


def check_guards(what: str, replies: Sequence[object]) -> None:
    """Raises StoreMisconfigured when a guard among the replies inside EXEC (the first and the last)
    could not run.
    """
    for guard in (replies[0], replies[-1]):
        if isinstance(guard, Exception):
            raise StoreMisconfigured(
                f"{what}: Redis runs no script that reads INFO stats: {guard}; allow EVAL, "
                f"INFO, HSET and HGET"
            )


def note(client: Any, partitions: Iterable[tuple[str, int]], cause: str) -> None:
    """Note why `partitions` are incomplete. If this fails, the note that `guarded` wrote stays."""
    try:
        with named_errors("noting that partitions are incomplete"):
            client.hset(
                keys.INGEST_HALTED,
                mapping={_field(topic, partition): cause for topic, partition in partitions},
            )
    except StoreError as error:
        _log.warning("halt_not_noted", error=str(error))


def check(client: Any, topic: str, partition: int) -> None:
    """Raises StoreCorrupt when the partition's state is incomplete; StoreUnavailable: retry."""
    with named_errors(f"checking whether {topic}/{partition} is complete"):
        cause: bytes | None = client.hget(keys.INGEST_HALTED, _field(topic, partition))
    if cause is not None:
        raise StoreCorrupt(
            f"{topic}/{partition} is incomplete in Redis ({keys.INGEST_HALTED}): {cause.decode()}"
        )


def _field(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


def _cause(offsets: OffsetRange) -> str:
    return (
        f"a command failed inside the transaction of the offsets [{offsets.first}, "
        f"{offsets.next}), and the process died before it named the "
        f"key. Find who else writes into this Redis, {REBUILD_ADVICE}"
    )
