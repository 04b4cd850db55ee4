"""Popularity that is on its way to Redis: added up over many batches, then written in short pieces.

A popular item is touched in nearly every batch, and a ZINCRBY costs Redis more than a user's counters and history together. So the
popularity of a partition is added up over FLUSH_EVENTS events (FLUSH_S seconds at most) and then cut: the sums of the events in
[first, next), in the order of their keys, go piece by piece into the transactions of batches, each with how far the cut is written.

So Redis always says which part of the log its popularities hold: everything below `first`, and of [first, next) the keys up to `after`.
Whoever takes the partition reads the log again from `first` and goes on with the same cut. Popularity is a function of the log alone:
it counts events of users who were deleted since, as a sum over everyone does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from core.types import Interaction
from core.use_cases import UseCases
from store import keys
from store.popularity import HOUR, growth

FLUSH_EVENTS = 64_000
"""Events after which sums are cut: at 10,000 items some four of five ZINCRBYs are saved, and half a dedup window is read again."""
FLUSH_S = 10.0
"""Seconds after which they are cut in any case."""
FEW_S = 1.0
"""Seconds after which they are cut when they fit one piece: what popularity is late by when little happens."""
PIECE = 400
"""Sums in one transaction: under 2 ms of Redis."""

Key = tuple[str, str]
"""Name of the popularity, item id."""


class Mark(NamedTuple):
    """How much of the log the popularities in Redis hold: all below `first`; of [first, next) the keys up to `after` ("": none)."""

    first: int = 0
    next: int = 0
    after: Key = ("", "")


MARK_FIELDS = ("popularity_first", "popularity_next", "popularity_after")
"""Where a mark stands in the hash of a partition's position."""


def read_mark(values: Sequence[bytes | None]) -> Mark:
    """The mark in the values of MARK_FIELDS; a partition that has none is at the log's beginning."""
    first, next_, after = values
    name, _, item_id = (after or b"").decode().partition(" ")
    return Mark(int(first or 0), int(next_ or 0), (name, item_id))


class Piece(NamedTuple):
    """Sums to write in one transaction, and the mark to write with them (None: it has not moved).

    `before`: the mark that Redis must still hold, or another process has written these sums (None: there is nothing to compare).
    """

    sums: list[tuple[Key, float]]
    mark: Mark | None
    before: Mark | None


class Pending:
    """The popularity of one partition that is not in Redis yet. Every valid, first event from `mark.first` on is added, in offset order."""

    def __init__(self, use_cases: UseCases, half_life_days: float, mark: Mark) -> None:
        self.mark = mark
        self._use_cases, self._half_life_days = use_cases, half_life_days
        self._cut: dict[Key, float] = {}
        self._left: list[tuple[Key, float]] | None = None
        self._open: dict[Key, float] = {}
        self._events = 0
        self._since = time.monotonic()
        self._hour, self._growth = -1, 0.0

    def add(self, offset: int, event: Interaction) -> None:
        """Count one event; one below the mark is in Redis already."""
        if offset < self.mark.first:
            return
        weight = self._use_cases.weight(event.event_type, event.value, event.use_case)
        if not weight:
            return
        if (hour := int(event.timestamp // HOUR)) != self._hour:
            self._hour, self._growth = hour, growth(event.timestamp, self._half_life_days)
        sums = self._open if offset >= self.mark.next else self._cut
        key = (event.use_case or keys.POPULAR_UNLABELLED, event.item_id)
        sums[key] = sums.get(key, 0.0) + weight * self._growth
        self._events += 1

    def due(self, position: int) -> bool:
        """Whether there is something to write although no event comes: a cut under way, or sums of FLUSH_S."""
        return self.mark.first < self.mark.next or self._ripe(position)

    def _ripe(self, position: int) -> bool:
        age = time.monotonic() - self._since
        return position > self.mark.next and (age > FLUSH_S or self._events >= FLUSH_EVENTS or (age > FEW_S and len(self._open) <= PIECE))

    def piece(self, position: int, *, whole: bool = False) -> Piece:
        """What goes into the transaction that moves the position to `position`, up to which every event has been added.

        `whole`: cut now, whatever has gathered.
        """
        before = self.mark
        if self._left is None:  # the first piece since the partition was taken: go on with the cut that Redis knows
            self._left = [each for each in sorted(self._cut.items()) if each[0] > before.after]
            self._cut.clear()
        if not self._left and (self._ripe(position) or (whole and position > before.next)):
            self._left = sorted(self._open.items())
            self._open, self._events, self._since = {}, 0, time.monotonic()
            self.mark = Mark(before.next, position)
        sums, self._left = self._left[:PIECE], self._left[PIECE:]
        if self._left:
            self.mark = self.mark._replace(after=sums[-1][0])
        elif self.mark.first < self.mark.next:
            self.mark = Mark(self.mark.next, self.mark.next)
        return Piece(sums, self.mark if self.mark != before else None, before)
