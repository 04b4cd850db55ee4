"""Reads what people watch: how far the state is, its memory, and the processes that work on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from store.state import keys, retrains
from store.state.connection import named_errors
from store.state.inspection import memory
from store.state.running import REBUILD_LEASE
from store.state.servers.redis_errors import is_denied

Partition = tuple[str, int]


class Progress(NamedTuple):
    """How far the state is in one partition.

    `position`: the first offset that is not in the state. `latest_at`: the broker's time of the
    latest event that was counted, in seconds since 1970; None before the first, and in topics
    without interactions.
    """

    topic: str
    partition: int
    position: int
    latest_at: float | None


class Overview(NamedTuple):
    """One look at Redis.

    `memory`: bytes that are used, and the limit (0: none); None where the user may not run INFO.
    `ingest`: the names (host:pid:...) of running ingest processes. `retrain`, `rebuild`: the
    process that runs one now.
    """

    partitions: list[Progress]
    memory: tuple[int, int] | None
    ingest: list[str]
    retrain: str | None
    rebuild: str | None


def read(client: redis.Redis, partitions: Sequence[Partition]) -> Overview:
    """Read everything in one round trip. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors("reading an overview"):
        pipe: Any = client.pipeline(transaction=False)
        for partition in partitions:
            pipe.hmget(keys.ONLY.position(*partition), ["position", "latest_at"])
        # by the clock of this process: an entry is renewed long before it expires
        pipe.zrangebyscore(keys.ONLY.running, time.time(), "+inf")
        pipe.get(keys.ONLY.lease(retrains.LEASE))
        pipe.get(keys.ONLY.lease(REBUILD_LEASE))
        pipe.info("memory")
        *values, running, retrain, rebuild, info = pipe.execute(raise_on_error=False)
        for reply in (*values, running, retrain, rebuild):
            if isinstance(reply, Exception):
                raise reply
        if isinstance(info, redis.RedisError):
            if not is_denied(info):
                raise info
            info = None
    return Overview(
        partitions=[
            Progress(*partition, int(position or 0), float(latest_at) if latest_at else None)
            for partition, (position, latest_at) in zip(partitions, values, strict=True)
        ],
        memory=None if info is None else memory.bounds(info),
        ingest=[_text(name) for name in running],
        retrain=_text(retrain) if retrain else None,
        rebuild=_text(rebuild) if rebuild else None,
    )


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
