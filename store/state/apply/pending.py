"""Popularity, and what is trending, on their way to Redis: added up over many batches, then written
in short pieces.

A popular item is touched in nearly every batch, and a ZINCRBY costs Redis more than a user's
counters and history together. So the sums of a partition are added up over FLUSH_EVENTS events
(FLUSH_S seconds at most) and then cut: the sums of the events in [first, next), in the order of
their keys, go piece by piece into the transactions of batches, each with how far the cut is
written.

So Redis always says which part of the log its sums hold: everything below `first`, and of [first,
next) the keys up to `after`. Whoever takes the partition reads the log again from `first` and goes
on with the same cut. Popularity is a function of the log alone: it counts events of users who were
deleted since, as a sum over everyone does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from core.types import Interaction
from core.use_cases import UseCases
from store.state import keys
from store.state.entities import trending
from store.state.entities.popularity import HOUR, growth

FLUSH_EVENTS = 128_000
"""Events after which sums are cut: over 10,000 items that saves five of six ZINCRBYs, and as much
is read again as for duplicates.
"""
FLUSH_S = 10.0
"""Seconds after which they are cut in any case."""
FEW_S = 1.0
"""Seconds after which they are cut when they fit one piece: what popularity is late by when little
happens.
"""
PIECE = 400
"""Sums in one transaction: under 2 ms of Redis."""
PIECES = 100
"""Transactions that a cut is spread over at most: FLUSH_EVENTS make more of them, so that it is
written before the next one is due.
"""

Key = tuple[str, str]
"""Sorted set in Redis, item id."""

Groups = dict[tuple[str | None, int, int, int], dict[str, float]]
"""(use case, HOUR of the events' own time, number of the finest bucket they happened in, how many
buckets take them) -> item -> weight.
"""
_SLOT = trending.FINE.bucket
"""Seconds of the finest bucket."""


class Mark(NamedTuple):
    """How much of the log the popularities in Redis hold: all below `first`; of [first, next) the
    keys up to `after` ("": none).
    """

    first: int = 0
    next: int = 0
    after: Key = ("", "")


MARK_FIELDS = ("popularity_first", "popularity_next", "popularity_after")
"""Where a mark stands in the hash of a partition's position."""


def read_mark(values: Sequence[bytes | None]) -> Mark:
    """The mark in the values of MARK_FIELDS; a partition that has none is at the log's
    beginning.
    """
    first, next_, after = values
    key, _, item_id = (after or b"").decode().partition(" ")
    # a cut that was under way before there were buckets: it held popularities alone, in the same
    # order
    if key and ":" not in key:
        key = keys.popular(key)
    return Mark(int(first or 0), int(next_ or 0), (key, item_id))


class Piece(NamedTuple):
    """Sums to write in one transaction, and the mark to write with them (None: it has not moved).

    `before`: the mark that Redis must still hold, or another process has written these sums (None:
    there is nothing to compare).
    """

    sums: list[tuple[Key, float]]
    mark: Mark | None
    before: Mark | None


class Pending:
    """The popularity of one partition that is not in Redis yet.

    Every valid, first event from `mark.first` on is added, in offset order.
    """

    def __init__(self, use_cases: UseCases, half_life_days: float, mark: Mark) -> None:
        self.mark = mark
        self._use_cases, self._half_life_days = use_cases, half_life_days
        self._cut: Groups = {}
        self._left: _Cut | None = None
        self._size = PIECE
        self._open: Groups = {}
        self._events = 0
        self._since = time.monotonic()

    def add(self, offset: int, event: Interaction, broker_time: float) -> None:
        """Count one event, which the broker took at `broker_time` (seconds); one below the mark is
        in Redis already.
        """
        if offset < self.mark.first:
            return
        weight = self._use_cases.weight(event.event_type, event.value, event.use_case)
        if not weight:
            return
        groups = self._open if offset >= self.mark.next else self._cut
        timestamp = event.timestamp
        happened = min(broker_time, timestamp)
        tier = trending.tier(broker_time - happened)
        group = (
            event.use_case,
            int(timestamp // HOUR),
            int(happened // _SLOT) if tier else 0,
            tier,
        )
        weights = groups.get(group)
        if weights is None:
            weights = groups[group] = {}
        weights[event.item_id] = weights.get(event.item_id, 0.0) + weight
        self._events += 1

    def due(self, position: int) -> bool:
        """Whether there is something to write although no event comes: a cut under way, or sums of
        FLUSH_S.
        """
        return self.mark.first < self.mark.next or self._ripe(position)

    def _ripe(self, position: int) -> bool:
        age = time.monotonic() - self._since
        return position > self.mark.next and (
            age > FLUSH_S or self._events >= FLUSH_EVENTS or (age > FEW_S and self._few())
        )

    def _few(self) -> bool:
        return self._events <= PIECE // 3 or (
            len(self._open) <= PIECE
            and sum(len(weights) * (1 + tier) for (*_, tier), weights in self._open.items())
            <= PIECE
        )

    def piece(self, position: int, *, whole: bool = False) -> Piece:
        """What goes into the transaction that moves the position to `position`, up to which every
        event has been added.

        `whole`: cut now, whatever has gathered.
        """
        before = self.mark
        # the first piece since the partition was taken: go on with the cut that Redis knows
        if self._left is None:
            self._left, self._cut = _Cut(self._cut, self._half_life_days, before.after), {}
        if not self._left and (self._ripe(position) or (whole and position > before.next)):
            self._left, self._open = _Cut(self._open, self._half_life_days), {}
            self._size = max(PIECE, self._left.most // PIECES)
            self._events, self._since = 0, time.monotonic()
            self.mark = Mark(before.next, position)
        sums = self._left.take(self._size)
        if self._left:
            self.mark = self.mark._replace(after=sums[-1][0])
        elif self.mark.first < self.mark.next:
            self.mark = Mark(self.mark.next, self.mark.next)
        return Piece(sums, self.mark if self.mark != before else None, before)


class _Cut:
    """What some groups add to each sorted set, in the order of the keys; the order of the events
    changes nothing (popularity._STEPS).

    A set is added up when its turn comes: all of them at once took a tenth of a second, for which
    the events behind would wait.
    """

    def __init__(self, groups: Groups, half_life_days: float, after: Key = ("", "")) -> None:
        """`after`: the last key that is written already."""
        now = time.time()
        self._after = after
        self._ready: list[tuple[Key, float]] = []
        self._weights: dict[str, list[tuple[dict[str, float], float]]] = {}
        for (use_case, hour, slot, tier), weights in groups.items():
            name = use_case or keys.POPULAR_UNLABELLED
            for key in trending.buckets(name, slot * trending.FINE.bucket, tier, now):
                self._weights.setdefault(key, []).append((weights, 1.0))
            self._weights.setdefault(keys.popular(name), []).append(
                (weights, growth(hour * HOUR, half_life_days))
            )
        self._sets = sorted((key for key in self._weights if key >= after[0]), reverse=True)
        self.most = sum(
            len(weights) for several in self._weights.values() for weights, _ in several
        )
        """At most so many sums are in it."""

    def __bool__(self) -> bool:
        return bool(self._ready or self._sets)

    def take(self, count: int) -> list[tuple[Key, float]]:
        """The next `count` sums; fewer when there are no more."""
        while self._sets and len(self._ready) < count:
            self._ready += self._sums(self._sets.pop())
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken

    def _sums(self, key: str) -> list[tuple[Key, float]]:
        sums: dict[str, float] = {}
        for weights, factor in self._weights.pop(key):
            for item_id, weight in weights.items():
                sums[item_id] = sums.get(item_id, 0.0) + weight * factor
        after = self._after[1] if key == self._after[0] else None
        return [
            ((key, item_id), sums[item_id])
            for item_id in sorted(sums)
            if after is None or item_id > after
        ]
