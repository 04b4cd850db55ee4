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
from store.state.shards import Shards

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

    `memory`: bytes that the fullest server uses, and its limit (0: none); None where the user may
    not run INFO. `ingest`: the names (host:pid:...) of running ingest processes. `retrain`,
    `rebuild`: the process that runs one now.
    """

    partitions: list[Progress]
    memory: tuple[int, int] | None
    ingest: list[str]
    retrain: str | None
    rebuild: str | None


def read(shards: Shards, partitions: Sequence[Partition]) -> Overview:
    """Read everything, in one round trip to each shard. Raises StoreUnavailable, StoreCorrupt."""
    progress: dict[Partition, Progress] = {}
    memories: list[tuple[int, int] | None] = []
    processes: list[Any] = []
    with named_errors("reading an overview"):
        for client in shards:
            names = keys.of(client)
            own = [part for part in partitions if shards.of_partition(*part) is client]
            pipe: Any = client.pipeline(transaction=False)
            for partition in own:
                pipe.hmget(names.position(*partition), ["position", "latest_at"])
            pipe.info("memory")
            if client is shards.first:
                # by the clock of this process: an entry is renewed long before it expires
                pipe.zrangebyscore(names.running, time.time(), "+inf")
                pipe.get(names.lease(retrains.LEASE))
                pipe.get(names.lease(REBUILD_LEASE))
            replies = pipe.execute(raise_on_error=False)
            memories.append(_memory(replies.pop(len(own))))
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            for partition, (position, latest_at) in zip(own, replies, strict=False):
                progress[partition] = Progress(
                    *partition, int(position or 0), float(latest_at) if latest_at else None
                )
            processes += replies[len(own) :]
    running, retrain, rebuild = processes
    known = [bounds for bounds in memories if bounds is not None]
    return Overview(
        partitions=[progress[partition] for partition in partitions],
        memory=memory.fullest(known) if known else None,
        ingest=[_text(name) for name in running],
        retrain=_text(retrain) if retrain else None,
        rebuild=_text(rebuild) if rebuild else None,
    )


def _memory(info: Any) -> tuple[int, int] | None:
    if isinstance(info, redis.RedisError):
        if not is_denied(info):
            raise info
        return None
    return memory.bounds(info)


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
