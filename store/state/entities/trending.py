"""What is trending: weights of events by the time they happened, in buckets that ingest fills in
the transactions of its batches.

An event happened at the time it says, or when the broker took it if it is dated ahead. It counts in
a window when the broker took it within the window's length after that. So the buckets are a
function of the log alone; they expire when no window holds them any more.

A window is the sum of its full buckets and of the one under way: it reaches back for its length,
and up to one bucket further.
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
    """Buckets of `bucket` seconds that make windows of up to `window` seconds."""

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
"""Window -> the buckets that it is made of, and its length in seconds."""
MARGIN = 3_600
"""Seconds that a bucket outlives its last window: so far apart may the clocks of ingest, Redis and
readers be.
"""
EVERY_S = 5.0
"""Seconds between two looks of a reader: ingest itself is late by one to twenty."""
SETTLES_S = 60.0
"""Seconds that a bucket is still read at each look after it has ended."""
MOST_ITEMS = 2_000
"""Items read of one bucket, the heaviest: it bounds a reader's memory.

A window is exact while no bucket has more.
"""
PAGE = 1_000
"""Items in one reply: under 1 ms of Redis."""
BURST = 200_000
"""Items after which a look ends, some tenths of a second: a reader that starts knows the last hour
first, and the week some looks later.
"""
AT_ONCE = 32
"""Buckets in one round trip."""
AGAIN = 8
"""Closed buckets that each look reads once more, the longest unread first: events that come late
show within minutes.
"""
MOST_KNOWN = 1_000_000
"""Different items after which a reader starts anew: bounds its memory."""
TOP = 1_000
"""Items in the order of a window."""

Entries = list[tuple[str, float]]


def tier(age: float) -> int:
    """In how many buckets an event counts that the broker took `age` seconds after it happened: 2,
    1 (the coarse one) or none.
    """
    return 2 if age < _FINE_S else 1 if age < _COARSE_S else 0


def buckets(name: str, happened: float, tier: int, now: float) -> list[str]:
    """Keys of those buckets, without the ones that have expired by `now`: reading an old log writes
    none.
    """
    chosen = [(level, _begin(happened, level)) for level in (COARSE, FINE)[:tier]]
    return [
        keys.trending(name, level.bucket, begin)
        for level, begin in chosen
        if _expires(level, begin) > now
    ]


def expires(key: str) -> int | None:
    """When a bucket expires, in seconds since 1970; None for a key that is no bucket."""
    if not key.startswith("trending:"):
        return None
    _, length, begin = key.rsplit(":", 2)
    return _expires(FINE if int(length) == FINE.bucket else COARSE, int(begin))


def _expires(level: Level, begin: int) -> int:
    return begin + level.bucket + level.window + MARGIN


def of_item(
    client: redis.Redis, names: Iterable[str], item_id: str, now: float
) -> dict[str, dict[str, float]]:
    """Window -> name -> weight of one item, for names under which it has any.

    Raises StoreUnavailable, StoreCorrupt.
    """
    wanted = [
        (window, name, key)
        for window in WINDOWS
        for name in names
        for key in _keys(window, name, now)
    ]
    with named_errors("reading the windows of an item"):
        pipe: Any = client.pipeline(transaction=False)
        for _, _, key in wanted:
            pipe.zscore(key, item_id)
        weights = pipe.execute()
    found: dict[str, dict[str, float]] = {window: {} for window in WINDOWS}
    for (window, name, _), weight in zip(wanted, weights, strict=True):
        if weight:
            found[window][name] = found[window].get(name, 0.0) + float(weight)
    return found


class Bucket(NamedTuple):
    """`rows` (n,) int32 into the reader's ids, `weights` (n,) f64."""

    rows: NDArray[np.int32]
    weights: NDArray[np.float64]


class Trending:
    """Follows the windows: a bucket is read until it is closed, and then kept. Not thread-safe."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: use cases and `unlabelled`."""
        self._names = tuple(names)
        self._rows: dict[str, int] = {}
        self._buckets: dict[str, Bucket] = {}  # the longest unread first
        self._looked = float("-inf")
        self._windows: dict[str, dict[str, Entries]] = {}

    def windows(self, client: redis.Redis, now: float) -> Mapping[str, Mapping[str, Entries]]:
        """Window -> name -> the TOP items with their weights, best first; of each window that is
        known by now.

        The same object as before while EVERY_S has not passed or nothing has changed. Raises
        StoreUnavailable, StoreCorrupt.
        """
        if 0 <= now - self._looked < EVERY_S:
            return self._windows
        if len(self._rows) > MOST_KNOWN:
            self._rows, self._buckets = {}, {}
        wanted = {
            window: {name: _keys(window, name, now) for name in self._names} for window in WINDOWS
        }
        every = dict.fromkeys(
            key for by_name in wanted.values() for mine in by_name.values() for key in mine
        )
        for key in self._buckets.keys() - every.keys():
            del self._buckets[key]
        running = [
            key
            for window, by_name in wanted.items()
            for mine in by_name.values()
            for key in mine[: 2 if now % WINDOWS[window][0].bucket < SETTLES_S else 1]
        ]
        unread = [key for key in every if key not in self._buckets]
        self._look(client, list(dict.fromkeys([*running, *unread, *islice(self._buckets, AGAIN)])))
        self._looked = now
        ids = list(self._rows)
        found = {
            window: {name: self._sum(mine, ids) for name, mine in by_name.items()}
            for window, by_name in wanted.items()
            if all(key in self._buckets for mine in by_name.values() for key in mine)
        }
        if found != self._windows:
            self._windows = found
        return self._windows

    def _look(self, client: redis.Redis, wanted: list[str]) -> None:
        """Read the buckets `wanted`, in that order, until BURST items have come."""
        items = 0
        for at in range(0, len(wanted), AT_ONCE):
            found = _read(client, wanted[at : at + AT_ONCE])
            for key, weights in found.items():
                rows = [self._rows.setdefault(item_id, len(self._rows)) for item_id in weights]
                self._buckets.pop(key, None)  # to the end
                self._buckets[key] = Bucket(
                    np.array(rows, dtype=np.int32),
                    np.fromiter(weights.values(), np.float64, len(weights)),
                )
                items += len(weights)
            if items > BURST:
                return

    def _sum(self, wanted: Sequence[str], ids: Sequence[str]) -> Entries:
        """The TOP items over some buckets, best first, ties by id."""
        rows, weights = (
            np.concatenate(column)
            for column in zip(*(self._buckets[key] for key in wanted), strict=True)
        )
        sums = np.bincount(rows, weights)
        touched = np.flatnonzero(sums)
        if len(touched) > TOP:
            touched = touched[sums[touched] >= np.partition(sums[touched], -TOP)[-TOP]]
        return sorted(
            ((ids[row], float(sums[row])) for row in touched.tolist()),
            key=lambda entry: (-entry[1], entry[0]),
        )[:TOP]


def _keys(window: str, name: str, now: float) -> list[str]:
    """The buckets of a window, the one under way first."""
    level, length = WINDOWS[window]
    latest = _begin(now, level)
    return [
        keys.trending(name, level.bucket, latest - back)
        for back in range(0, length + level.bucket, level.bucket)
    ]


def _begin(at: float, level: Level) -> int:
    return int(at // level.bucket) * level.bucket


def _read(client: redis.Redis, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Bucket -> item -> weight, the MOST_ITEMS heaviest."""
    found: dict[str, dict[str, float]] = {key: {} for key in wanted}
    more = list(wanted)
    for start in range(0, MOST_ITEMS, PAGE):
        with named_errors("reading what is trending"):
            pipe: Any = client.pipeline(transaction=False)
            for key in more:
                pipe.zrevrange(key, start, start + PAGE - 1, withscores=True)
            replies = pipe.execute()
        for key, reply in zip(more, replies, strict=True):
            found[key].update((item_id.decode(), float(weight)) for item_id, weight in reply)
        more = [key for key, reply in zip(more, replies, strict=True) if len(reply) == PAGE]
        if not more:
            break
    return found
