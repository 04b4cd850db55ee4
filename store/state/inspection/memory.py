"""Measures what the state takes of Redis' memory, by kind of key, and how fast users grow.

`measure` counts the keys by SCAN, `estimate` by a sample of all keys. The bytes of a kind are the
mean of MEMORY USAGE of a sample of its keys, times their number, so one huge key among many small
ones may be missed. In a cluster each primary that has a shard is measured, and the kinds are added
up; memory and limit are those of the fullest one.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from core.process.background import pause
from store.state.connection import Client, named_errors
from store.state.entities.users import history_event
from store.state.servers.redis_errors import is_denied
from store.state.shards import by_server

SAMPLE = 1000
"""Keys of a kind whose bytes are measured; users whose growth is measured."""
DRAWN = 500
"""Keys that `estimate` draws at random: a kind that is a quarter of all keys is then counted to
within 8% two times of three.
"""
_SCANNED = 1000
"""Keys of one SCAN, which takes Redis under a millisecond."""
_CHUNK = 100
"""Commands of one round trip."""
_DAY = 86_400.0
_TAG = re.compile(rb"^\{\d+\}:")
"""What keys begin with where there are several shards."""
_PARTS = (b"", b":history", b":profile", b":als")
"""What follows `user:{id}` in the keys that `bytes_per_user` counts."""
_KINDS_OF_USER = {"": "user", **{part: f"user {part}" for part in ("history", "profile", "als")}}


class KindUsage(NamedTuple):
    """Keys of one kind: their number, and the mean bytes of the sampled ones."""

    kind: str
    keys: int
    bytes_each: float

    @property
    def bytes(self) -> int:
        """Estimated bytes of all keys of the kind."""
        return round(self.keys * self.bytes_each)


class Memory(NamedTuple):
    """The memory of Redis, in bytes. `limit`: maxmemory; 0: none. Both are of the fullest server.

    `days_left`: days until the first server is full at this growth; None without a limit or
    without growth. `servers`: memory and limit of each primary of a cluster, by host and port;
    empty where there is one server.
    """

    used: int
    limit: int
    kinds: list[KindUsage]
    users: int
    bytes_per_user: float
    """Counters, history, profile and vector of a user."""
    growth_per_day: float
    """Bytes that users added a day, by the times of their events."""
    days_left: float | None
    servers: Mapping[str, tuple[int, int]] = {}


def used_and_limit(shards: Iterable[Client]) -> tuple[int, int]:
    """Bytes that the fullest server uses, and its maxmemory; both 0 where INFO is denied.

    Raises StoreUnavailable.
    """
    with named_errors("reading the memory"):
        try:
            return fullest(bounds(client.info("memory")) for client in by_server(shards).values())
        except redis.ResponseError as error:
            if not is_denied(error):
                raise
            return 0, 0


def fullest(servers: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Memory and limit of the server that has the least left of its limit, relative to it."""
    return max(servers, key=lambda memory: (memory[0] / memory[1] if memory[1] else 0.0, memory[0]))


def bounds(info: Any) -> tuple[int, int]:
    """Bytes that are used, and maxmemory (0: none), in an answer to INFO memory."""
    return int(info["used_memory"]), int(info.get("maxmemory", 0))


def measure(shards: Iterable[Client], history_cap: int, days: float) -> Memory:
    """Measure; growth is that of the last `days`.

    About four seconds for a million keys. Raises StoreUnavailable, StoreMisconfigured (the server
    permits no INFO, SCAN or MEMORY USAGE).
    """
    with named_errors("measuring memory"):
        return _sum(
            {
                server: _memory(client, _scan(client), history_cap, days)
                for server, client in by_server(shards).items()
            }
        )


def estimate(shards: Iterable[Client], history_cap: int, days: float) -> Memory:
    """As `measure`, from DRAWN keys at random where Redis holds more: some hundredths of a second
    for any number of keys. Kinds of few keys are missing then.

    Raises StoreUnavailable, StoreMisconfigured (the server permits no INFO or MEMORY USAGE).
    """
    with named_errors("estimating memory"):
        return _sum(
            {
                server: _memory(client, _sample(client), history_cap, days)
                for server, client in by_server(shards).items()
            }
        )


_Counted = tuple[Counter[str], dict[str, list[bytes]]]
"""By kind: the number of keys, and a sample of them."""


def _sum(memories: Mapping[str, Memory]) -> Memory:
    """All servers together."""
    servers = list(memories.values())
    if len(servers) == 1:
        return servers[0]
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for server in servers:
        for usage in server.kinds:
            counts[usage.kind] += usage.keys
            sizes[usage.kind] += usage.bytes
    users = sum(server.users for server in servers)
    days = [server.days_left for server in servers if server.days_left is not None]
    used, limit = fullest((server.used, server.limit) for server in servers)
    return Memory(
        used=used,
        limit=limit,
        kinds=[
            KindUsage(kind, counts[kind], size / max(1, counts[kind]))
            for kind, size in sizes.most_common()
        ],
        users=users,
        bytes_per_user=sum(server.bytes_per_user * server.users for server in servers)
        / max(1, users),
        growth_per_day=sum(server.growth_per_day for server in servers),
        days_left=min(days, default=None),
        servers={name: (server.used, server.limit) for name, server in memories.items()},
    )


def _memory(client: Client, counted: _Counted, history_cap: int, days: float) -> Memory:
    used, limit = bounds(client.info("memory"))
    counts, samples = counted
    usages = {kind: _usage(client, sample) for kind, sample in samples.items()}
    kinds = [
        KindUsage(kind, counts[kind], sum(of_kind) / max(1, len(of_kind)))
        for kind, of_kind in usages.items()
    ]
    growth = _growth(client, samples.get("user", []), history_cap, days)
    kinds.sort(key=lambda usage: -usage.bytes)
    users = counts["user"]
    of_users = sum(usage.bytes for usage in kinds if usage.kind in _KINDS_OF_USER.values())
    growth_per_day = growth * users
    has_end = limit and growth_per_day > 0
    return Memory(
        used=used,
        limit=limit,
        kinds=kinds,
        users=users,
        bytes_per_user=of_users / max(1, users),
        growth_per_day=growth_per_day,
        days_left=max(0.0, (limit - used) / growth_per_day) if has_end else None,
    )


def _sample(client: Client) -> _Counted:
    keys_in_all: Any = client.dbsize()
    return _scan(client) if keys_in_all <= DRAWN else _draw(client, keys_in_all)


def _draw(client: Client, keys_in_all: int) -> _Counted:
    """DRAWN keys at random, a key at most once in a sample; the numbers are their shares."""
    drawn = [key for key in _replies(client, [("RANDOMKEY",)] * DRAWN) if key is not None]
    counts: Counter[str] = Counter()
    samples: dict[str, dict[bytes, None]] = {}
    for key in drawn:
        counts[_kind(key)] += 1
        samples.setdefault(_kind(key), {})[key] = None
    scale = keys_in_all / max(1, len(drawn))
    numbers = Counter({kind: round(count * scale) for kind, count in counts.items()})
    return numbers, {kind: list(sample) for kind, sample in samples.items()}


def _scan(client: Client) -> _Counted:
    """By kind: the number of keys, and SAMPLE keys at random (reservoir sampling)."""
    counts: Counter[str] = Counter()
    samples: dict[str, list[bytes]] = {}
    for key in client.scan_iter(count=_SCANNED):
        kind = _kind(key)
        counts[kind] += 1
        sample = samples.setdefault(kind, [])
        if len(sample) < SAMPLE:
            sample.append(key)
        elif (place := random.randrange(counts[kind])) < SAMPLE:
            sample[place] = key
    return counts, samples


def _kind(key: bytes) -> str:
    """`user`, `user history`, ..., for other keys the first word; the same in every shard."""
    first, _, rest = _TAG.sub(b"", key).partition(b":")
    word = first.decode(errors="replace")
    if word not in ("user", "item") or not rest:
        return word
    part = rest.partition(b":")[2].decode(errors="replace")
    return f"{word} {part}".rstrip()


def _usage(client: Client, sample: Sequence[bytes]) -> list[int]:
    """The bytes of the keys, without those that are gone."""
    replies = _replies(client, [("MEMORY", "USAGE", key) for key in sample])
    return [reply for reply in replies if reply is not None]


def _growth(client: Client, sample: Sequence[bytes], history_cap: int, days: float) -> float:
    """Mean bytes a day that a user of the sample added in the last `days`.

    A history that is not full has grown by its new lines; the keys of a user whose first event is
    new are new as a whole.
    """
    since = time.time() - days * _DAY
    growths: list[float] = []
    for start in range(0, len(sample), _CHUNK):
        users = sample[start : start + _CHUNK]
        commands: list[tuple[str | int | bytes, ...]] = []
        for user in users:
            commands += [
                ("HGET", user, "first_seen"),
                ("LRANGE", user + _PARTS[1], -history_cap, -1),
                *[("MEMORY", "USAGE", user + part) for part in _PARTS],
            ]
        replies = _replies(client, commands)
        for number in range(len(users)):
            first_seen, lines, *usage = replies[6 * number : 6 * number + 6]
            growths.append(_added(first_seen, lines, usage, since, history_cap) / days)
    return sum(growths) / max(1, len(growths))


def _added(
    first_seen: bytes | None,
    lines: list[bytes],
    usage: Sequence[int | None],
    since: float,
    history_cap: int,
) -> float:
    """Bytes that one user added since then."""
    counters, history, profile, vector = (size or 0 for size in usage)
    if int(first_seen or 0) > since:
        return counters + history + profile + vector
    if not lines or len(lines) >= history_cap:
        return 0
    new = sum(history_event(line).timestamp > since for line in lines)
    return history * new / len(lines)


def _replies(client: Client, commands: Sequence[tuple[str | int | bytes, ...]]) -> list[Any]:
    replies: list[Any] = []
    for start in range(0, len(commands), _CHUNK):
        pipe: Any = client.pipeline(transaction=False)
        for command in commands[start : start + _CHUNK]:
            pipe.execute_command(*command)
        replies += pipe.execute()
        pause()
    return replies
