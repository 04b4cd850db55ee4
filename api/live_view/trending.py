"""Follows what is trending: caches the buckets of all shards, and ranks the items of each window.

store.state.entities.trending says what buckets and windows are, and reads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.state.entities.trending import WINDOWS, Name, Weights, names_at

REFRESH_S = 5.0
"""Seconds between two refreshes of a reader; ingest itself has a delay of 1 to 20 seconds."""
SETTLE_S = 60.0
"""Seconds after the end of a bucket during which each refresh still reads it."""
REREAD_BUCKETS = 8
"""Closed buckets that each refresh reads again, the longest unread first, so that late events are
visible within minutes.
"""
MOST_KNOWN = 1_000_000
"""Distinct items after which a reader starts over, which bounds its memory."""
TOP = 1_000
"""Items in the ranking of a window."""

Entries = list[tuple[str, float]]


class Bucket(NamedTuple):
    """`rows` (n,) int32: indices of the reader's ids; `weights` (n,) f64."""

    rows: NDArray[np.int32]
    weights: NDArray[np.float64]


class Trending:
    """Follows the windows: a bucket is read until it is closed, then cached. Not thread-safe.

    `due` says what to read, `read` reads it from one shard, and `update` takes what all shards had.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: use cases and `unlabelled`."""
        self._names = tuple(names)
        self._rows: dict[str, int] = {}
        self._buckets: dict[Name, Bucket] = {}  # the longest unread first
        self._refreshed = float("-inf")
        self.windows: dict[str, dict[str, Entries]] = {}
        """Window -> name -> the TOP items with their weights, best first, of each complete window.

        The same object as before when nothing has changed.
        """

    def due(self, now: float) -> list[Name]:
        """The buckets to read now, the most needed first; none within REFRESH_S."""
        if 0 <= now - self._refreshed < REFRESH_S:
            return []
        if len(self._rows) > MOST_KNOWN:
            self._rows, self._buckets = {}, {}
        windows = self._buckets_at(now)
        open_buckets = [
            bucket
            for window, by_name in windows.items()
            for part in by_name.values()
            for bucket in part[: 2 if now % WINDOWS[window][0].bucket < SETTLE_S else 1]
        ]
        unread = [
            bucket
            for by_name in windows.values()
            for part in by_name.values()
            for bucket in part
            if bucket not in self._buckets
        ]
        return list(dict.fromkeys([*open_buckets, *unread, *islice(self._buckets, REREAD_BUCKETS)]))

    def update(self, of_shards: Sequence[Mapping[Name, Weights]], now: float) -> None:
        """Take what `read` returned for `due` of the same `now`, of each shard.

        A bucket that was not read of every shard is read by a later refresh.
        """
        windows = self._buckets_at(now)
        current = {
            bucket for by_name in windows.values() for part in by_name.values() for bucket in part
        }
        for bucket in self._buckets.keys() - current:
            del self._buckets[bucket]
        for bucket in of_shards[0]:
            if all(bucket in of_shard for of_shard in of_shards) and bucket in current:
                weights = _sum([of_shard[bucket] for of_shard in of_shards])
                rows = [self._rows.setdefault(item_id, len(self._rows)) for item_id in weights]
                self._buckets.pop(bucket, None)  # to the end
                self._buckets[bucket] = Bucket(
                    np.array(rows, dtype=np.int32),
                    np.fromiter(weights.values(), np.float64, len(weights)),
                )
        self._refreshed = now
        ids = list(self._rows)
        rankings = {
            window: {name: self._ranking(part, ids) for name, part in by_name.items()}
            for window, by_name in windows.items()
            if all(bucket in self._buckets for part in by_name.values() for bucket in part)
        }
        if rankings != self.windows:
            self.windows = rankings

    def _buckets_at(self, now: float) -> dict[str, dict[str, list[Name]]]:
        return {
            window: {name: names_at(window, name, now) for name in self._names}
            for window in WINDOWS
        }

    def _ranking(self, part: Sequence[Name], ids: Sequence[str]) -> Entries:
        """The TOP items of the sum of some buckets, best first, ties by id."""
        rows, weights = (
            np.concatenate(column)
            for column in zip(*(self._buckets[bucket] for bucket in part), strict=True)
        )
        sums = np.bincount(rows, weights)
        nonzero = np.flatnonzero(sums)
        if len(nonzero) > TOP:
            nonzero = nonzero[sums[nonzero] >= np.partition(sums[nonzero], -TOP)[-TOP]]
        return sorted(
            ((ids[row], float(sums[row])) for row in nonzero.tolist()),
            key=lambda entry: (-entry[1], entry[0]),
        )[:TOP]


def _sum(of_shards: Sequence[Weights]) -> Weights:
    if len(of_shards) == 1:
        return of_shards[0]
    sums: dict[str, float] = defaultdict(float)
    for weights in of_shards:
        for item_id, weight in weights.items():
            sums[item_id] += weight
    return sums
