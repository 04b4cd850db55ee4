"""Computes and reads what is trending: event weights in buckets of the time when they happened.

Ingest writes the buckets in the transactions of its batches. An event happened at its own
timestamp, or at the broker's time if the timestamp is later than that. It counts in a window if the
broker received it within the length of the window after that. So the buckets follow from the log
alone. They expire when they are outside of every window.

A window is the sum of the current bucket and of the full ones before it: it goes back for its
length, and up to one bucket further.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import redis
from numpy.typing import NDArray

from store.state import keys
from store.state.connection import named_errors


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
REFRESH_S = 5.0
"""Seconds between two refreshes of a reader; ingest itself has a delay of 1 to 20 seconds."""
SETTLE_S = 60.0
"""Seconds after the end of a bucket during which each refresh still reads it."""
MOST_ITEMS = 2_000
"""Most items read of one bucket, by weight, which bounds the memory of a reader.

A window is exact while no bucket has more.
"""
PAGE = 1_000
"""Items in one reply: under 1 ms of Redis."""
REFRESH_ITEMS = 200_000
"""Items after which a refresh ends: some tenths of a second. A reader that starts has the last hour
first, and the week some refreshes later.
"""
BUCKETS_PER_TRIP = 32
"""Buckets in one round trip."""
REREAD_BUCKETS = 8
"""Closed buckets that each refresh reads again, the longest unread first, so that late events are
visible within minutes.
"""
MOST_KNOWN = 1_000_000
"""Distinct items after which a reader starts over, which bounds its memory."""
TOP = 1_000
"""Items in the ranking of a window."""

Entries = list[tuple[str, float]]


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
    client: redis.Redis, names: Iterable[str], item_id: str, now: float
) -> dict[str, dict[str, float]]:
    """Window -> name -> weight of one item, of the names with a weight.

    Raises StoreUnavailable, StoreCorrupt.
    """
    bucket_keys = [
        (window, name, key)
        for window in WINDOWS
        for name in names
        for key in _keys(window, name, now)
    ]
    with named_errors("reading the windows of an item"):
        pipe: Any = client.pipeline(transaction=False)
        for _, _, key in bucket_keys:
            pipe.zscore(key, item_id)
        weights = pipe.execute()
    sums: dict[str, dict[str, float]] = {window: {} for window in WINDOWS}
    for (window, name, _), weight in zip(bucket_keys, weights, strict=True):
        if weight:
            sums[window][name] = sums[window].get(name, 0.0) + float(weight)
    return sums


class Series(NamedTuple):
    """Weights of one item by bucket of `seconds`, the oldest first; the first begins at `start`."""

    start: int
    seconds: int
    weights: list[float]


def series_of_item(
    client: redis.Redis, names: Iterable[str], item_id: str, now: float
) -> dict[str, dict[str, Series]]:
    """Window (hour, week) -> name -> the item's weights by bucket, of the names with a weight.

    Raises StoreUnavailable, StoreCorrupt.
    """
    bucket_keys = {
        (window, name): _keys(window, name, now)[::-1]
        for window in ("hour", "week")
        for name in names
    }
    with named_errors("reading the windows of an item"):
        pipe: Any = client.pipeline(transaction=False)
        for name_keys in bucket_keys.values():
            for key in name_keys:
                pipe.zscore(key, item_id)
        replies = iter(pipe.execute())
    series: dict[str, dict[str, Series]] = {"hour": {}, "week": {}}
    for (window, name), name_keys in bucket_keys.items():
        weights = [float(weight or 0.0) for weight in islice(replies, len(name_keys))]
        if any(weights):
            start = int(name_keys[0].rpartition(":")[2])
            series[window][name] = Series(start, WINDOWS[window][0].bucket, weights)
    return series


class Bucket(NamedTuple):
    """`rows` (n,) int32: indices of the reader's ids; `weights` (n,) f64."""

    rows: NDArray[np.int32]
    weights: NDArray[np.float64]


class Trending:
    """Follows the windows: reads a bucket until it is closed, then caches it. Not thread-safe."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: use cases and `unlabelled`."""
        self._names = tuple(names)
        self._rows: dict[str, int] = {}
        self._buckets: dict[str, Bucket] = {}  # the longest unread first
        self._refreshed = float("-inf")
        self._windows: dict[str, dict[str, Entries]] = {}

    def windows(self, client: redis.Redis, now: float) -> Mapping[str, Mapping[str, Entries]]:
        """Window -> name -> the TOP items with their weights, best first, of each complete window.

        The same object as before within REFRESH_S, or when nothing has changed. Raises
        StoreUnavailable, StoreCorrupt.
        """
        if 0 <= now - self._refreshed < REFRESH_S:
            return self._windows
        if len(self._rows) > MOST_KNOWN:
            self._rows, self._buckets = {}, {}
        windows = {
            window: {name: _keys(window, name, now) for name in self._names} for window in WINDOWS
        }
        current = dict.fromkeys(
            key
            for by_name in windows.values()
            for name_keys in by_name.values()
            for key in name_keys
        )
        for key in self._buckets.keys() - current.keys():
            del self._buckets[key]
        open_buckets = [
            key
            for window, by_name in windows.items()
            for name_keys in by_name.values()
            for key in name_keys[: 2 if now % WINDOWS[window][0].bucket < SETTLE_S else 1]
        ]
        unread = [key for key in current if key not in self._buckets]
        reread = islice(self._buckets, REREAD_BUCKETS)
        self._refresh(client, list(dict.fromkeys([*open_buckets, *unread, *reread])))
        self._refreshed = now
        ids = list(self._rows)
        rankings = {
            window: {name: self._ranking(name_keys, ids) for name, name_keys in by_name.items()}
            for window, by_name in windows.items()
            if all(key in self._buckets for name_keys in by_name.values() for key in name_keys)
        }
        if rankings != self._windows:
            self._windows = rankings
        return self._windows

    def _refresh(self, client: redis.Redis, bucket_keys: list[str]) -> None:
        """Read buckets in this order, until REFRESH_ITEMS items are read."""
        items = 0
        for start in range(0, len(bucket_keys), BUCKETS_PER_TRIP):
            buckets_read = _read(client, bucket_keys[start : start + BUCKETS_PER_TRIP])
            for key, weights in buckets_read.items():
                rows = [self._rows.setdefault(item_id, len(self._rows)) for item_id in weights]
                self._buckets.pop(key, None)  # to the end
                self._buckets[key] = Bucket(
                    np.array(rows, dtype=np.int32),
                    np.fromiter(weights.values(), np.float64, len(weights)),
                )
                items += len(weights)
            if items > REFRESH_ITEMS:
                return

    def _ranking(self, bucket_keys: Sequence[str], ids: Sequence[str]) -> Entries:
        """The TOP items of the sum of some buckets, best first, ties by id."""
        rows, weights = (
            np.concatenate(column)
            for column in zip(*(self._buckets[key] for key in bucket_keys), strict=True)
        )
        sums = np.bincount(rows, weights)
        nonzero = np.flatnonzero(sums)
        if len(nonzero) > TOP:
            nonzero = nonzero[sums[nonzero] >= np.partition(sums[nonzero], -TOP)[-TOP]]
        return sorted(
            ((ids[row], float(sums[row])) for row in nonzero.tolist()),
            key=lambda entry: (-entry[1], entry[0]),
        )[:TOP]


def _keys(window: str, name: str, now: float) -> list[str]:
    """The keys of the buckets of a window, the current one first."""
    level, length = WINDOWS[window]
    latest = _begin(now, level)
    return [
        keys.ONLY.trending(name, level.bucket, latest - back)
        for back in range(0, length + level.bucket, level.bucket)
    ]


def _begin(time: float, level: Level) -> int:
    return int(time // level.bucket) * level.bucket


def _read(client: redis.Redis, bucket_keys: Sequence[str]) -> dict[str, dict[str, float]]:
    """Bucket -> item -> weight, the MOST_ITEMS heaviest."""
    weights: dict[str, dict[str, float]] = {key: {} for key in bucket_keys}
    unfinished = list(bucket_keys)
    for start in range(0, MOST_ITEMS, PAGE):
        with named_errors("reading what is trending"):
            pipe: Any = client.pipeline(transaction=False)
            for key in unfinished:
                pipe.zrevrange(key, start, start + PAGE - 1, withscores=True)
            replies = pipe.execute()
        for key, reply in zip(unfinished, replies, strict=True):
            weights[key].update((item_id.decode(), float(weight)) for item_id, weight in reply)
        unfinished = [
            key for key, reply in zip(unfinished, replies, strict=True) if len(reply) == PAGE
        ]
        if not unfinished:
            break
    return weights
