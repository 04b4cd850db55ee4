"""Computes and reads what is trending: event weights in buckets of the time when they happened.

Ingest writes the buckets in the transactions of its batches. An event happened at its own
timestamp, or at the broker's time if the timestamp is later than that. It counts in a window if the
broker received it within the length of the window after that. So the buckets follow from the log
alone. They expire when they are outside of every window.

A window is the sum of the current bucket and of the full ones before it: it goes back for its
length, and up to one bucket further. Each shard has the buckets of the events of its users; readers
add them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from store.state import keys
from store.state.connection import Client, named_errors


class Level(NamedTuple):
    """Buckets of `bucket` seconds, which form windows of up to `window` seconds."""

    bucket: int
    window: int


FINE = Level(300, 3_600)
COARSE = Level(3_600, 7 * 86_400)
_FINE_S, _COARSE_S = FINE.window, COARSE.window
WINDOWS: Mapping[str, tuple[Level, int]] = {
    "hour": (FINE, 3_600),
    "day": (COARSE, 86_400),
    "week": (COARSE, 7 * 86_400),
}
"""Window -> the level of its buckets, and its length in seconds."""
MARGIN = 3_600
"""Seconds from the end of a bucket's last window to its expiry: the most that the clocks of ingest,
Redis and readers may differ.
"""
MOST_ITEMS = 2_000
"""Most items read of one bucket of a shard, by weight, which bounds the memory of a reader.

A window is exact while no bucket has more.
"""
PAGE = 1_000
"""Items in one reply: under 1 ms of Redis."""
REFRESH_ITEMS = 200_000
"""Items of all shards after which a refresh ends: some tenths of a second. A reader that starts has
the last hour first, and the week some refreshes later.
"""
BUCKETS_PER_TRIP = 32
"""Buckets in one round trip."""
Name = tuple[str, int, int]
"""A bucket in all shards: name of the popularity, length and begin in seconds."""
Weights = Mapping[str, float]
"""Weight by item."""


def tier(age: float) -> int:
    """The number of buckets in which an event counts that the broker received after `age` seconds.

    2, 1 (the coarse one) or 0.
    """
    return 2 if age < _FINE_S else 1 if age < _COARSE_S else 0


def buckets(name: str, happened: float, tier: int, now: float) -> list[str]:
    """Keys of the buckets of an event, without expired ones, so that an old log writes none.

    The keys lack the prefix of a shard.
    """
    begins = [(level, _begin(happened, level)) for level in (COARSE, FINE)[:tier]]
    return [
        keys.trending(name, level.bucket, begin)
        for level, begin in begins
        if _expires(level, begin) > now
    ]


def expires(key: str) -> int | None:
    """The expiry of a bucket, in seconds since 1970; None for another key.

    `key` lacks the prefix of a shard.
    """
    if not key.startswith("trending:"):
        return None
    _, length, begin = key.rsplit(":", 2)
    return _expires(FINE if int(length) == FINE.bucket else COARSE, int(begin))


def _expires(level: Level, begin: int) -> int:
    return begin + level.bucket + level.window + MARGIN


def of_item(
    clients: Iterable[Client], names: Iterable[str], item_id: str, now: float
) -> dict[str, dict[str, float]]:
    """Window -> name -> weight of one item, of the names with a weight.

    `clients`: of all shards. Raises StoreUnavailable, StoreCorrupt.
    """
    parts = {(window, name): names_at(window, name, now) for window in WINDOWS for name in names}
    weights = _of_item(clients, parts.values(), item_id)
    sums: dict[str, dict[str, float]] = {window: {} for window in WINDOWS}
    for (window, name), part in parts.items():
        if total := sum(weights[bucket] for bucket in part):
            sums[window][name] = total
    return sums


class Series(NamedTuple):
    """Weights of one item by bucket of `seconds`, the oldest first; the first begins at `start`."""

    start: int
    seconds: int
    weights: list[float]


def series_of_item(
    clients: Iterable[Client], names: Iterable[str], item_id: str, now: float
) -> dict[str, dict[str, Series]]:
    """Window (hour, week) -> name -> the item's weights by bucket, of the names with a weight.

    `clients`: of all shards. Raises StoreUnavailable, StoreCorrupt.
    """
    parts = {
        (window, name): names_at(window, name, now)[::-1]
        for window in ("hour", "week")
        for name in names
    }
    weights = _of_item(clients, parts.values(), item_id)
    series: dict[str, dict[str, Series]] = {"hour": {}, "week": {}}
    for (window, name), part in parts.items():
        if any(weights[bucket] for bucket in part):
            _, length, start = part[0]
            series[window][name] = Series(start, length, [weights[bucket] for bucket in part])
    return series


def _of_item(
    clients: Iterable[Client], parts: Iterable[Sequence[Name]], item_id: str
) -> dict[Name, float]:
    """The weight of an item in each bucket, summed over the shards; 0 where it has none."""
    weights = {bucket: 0.0 for part in parts for bucket in part}
    for client in clients:
        shard = keys.of(client)
        with named_errors("reading the windows of an item"):
            pipe: Any = client.pipeline(transaction=False)
            for bucket in weights:
                pipe.zscore(shard.trending(*bucket), item_id)
            replies = pipe.execute()
        for bucket, weight in zip(weights, replies, strict=True):
            weights[bucket] += float(weight or 0.0)
    return weights


def read(client: Client, due: Sequence[Name]) -> dict[Name, dict[str, float]]:
    """The weights in buckets of one shard, in this order, until its part of REFRESH_ITEMS are read.

    Raises StoreUnavailable, StoreCorrupt.
    """
    most = REFRESH_ITEMS // keys.of(client).shards
    weights: dict[Name, dict[str, float]] = {}
    items = 0
    for start in range(0, len(due), BUCKETS_PER_TRIP):
        trip = _read(client, due[start : start + BUCKETS_PER_TRIP])
        weights |= trip
        items += sum(map(len, trip.values()))
        if items > most:
            break
    return weights


def names_at(window: str, name: str, now: float) -> list[Name]:
    """The buckets of a window, the current one first."""
    level, length = WINDOWS[window]
    latest = _begin(now, level)
    return [
        (name, level.bucket, latest - back)
        for back in range(0, length + level.bucket, level.bucket)
    ]


def _begin(time: float, level: Level) -> int:
    return int(time // level.bucket) * level.bucket


def _read(client: Client, buckets: Sequence[Name]) -> dict[Name, dict[str, float]]:
    """Bucket -> item -> weight, the MOST_ITEMS heaviest."""
    shard = keys.of(client)
    weights: dict[Name, dict[str, float]] = {bucket: {} for bucket in buckets}
    unfinished = list(buckets)
    for start in range(0, MOST_ITEMS, PAGE):
        with named_errors("reading what is trending"):
            pipe: Any = client.pipeline(transaction=False)
            for bucket in unfinished:
                pipe.zrevrange(shard.trending(*bucket), start, start + PAGE - 1, withscores=True)
            replies = pipe.execute()
        for bucket, reply in zip(unfinished, replies, strict=True):
            weights[bucket].update((item_id.decode(), float(weight)) for item_id, weight in reply)
        unfinished = [
            bucket for bucket, reply in zip(unfinished, replies, strict=True) if len(reply) == PAGE
        ]
        if not unfinished:
            break
    return weights
