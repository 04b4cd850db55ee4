"""Sums popularity and trending over many batches, and splits the sums into pieces to write.

A popular item occurs in nearly every batch, and a ZINCRBY takes Redis longer than the counters and
the history of a user. So the sums of a partition are collected over FLUSH_EVENTS events (FLUSH_S
seconds at most). Then they are cut: the sums of the events at [first, next), ordered by key, are
written piece by piece in the transactions of batches, each with the mark of what is written.

So Redis always has the mark of its sums: all events below `first`, and of the events at [first,
next) the keys up to `after`. The next owner of the partition reads the log again from `first` and
continues the same cut. Popularity follows from the log alone: it is a sum over all users, so it
keeps the events of users who are deleted later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import sub
from typing import NamedTuple

from core.types import Interaction
from core.use_cases import UseCases
from store.state import keys
from store.state.entities import trending
from store.state.entities.popularity import HOUR, growth

FLUSH_EVENTS = 128_000
"""Events after which sums are cut. With 10,000 items this saves five of six ZINCRBYs. A new owner
reads as many events again as it does for duplicates.
"""
FLUSH_S = 10.0
"""Seconds after which sums are always cut."""
FEW_S = 1.0
"""Seconds after which sums are cut that fit one piece: the delay of popularity at a low event rate.
"""
PIECE = 400
"""Sums in one transaction, which take Redis under 2 ms."""
PIECES = 100
"""Most transactions for one cut. FLUSH_EVENTS events make more transactions than that, so a cut is
written before the next one is due.
"""

Key = tuple[str, str]
"""Sorted set in Redis (its key without the prefix of the shard), item id."""

Groups = dict[tuple[str | None, int, int, int], dict[str, float]]
"""(use case, hour of timestamps, number of fine bucket, number of buckets) -> item -> weight."""
_SLOT = trending.FINE.bucket
"""Seconds of a fine bucket."""


class _Group(NamedTuple):
    """The group of most new events of a use case: those that happened in the current fine bucket,
    and reached the broker after that and within the hour.
    """

    begin: int
    end: int
    weights: dict[str, float]
    of_types: Mapping[str, float]
    """Event type -> weight of an event without a value."""


class Mark(NamedTuple):
    """The part of the log that popularity in Redis holds.

    All events below `first`; of the events at [first, next) the keys up to `after` ("": none).
    `default`: the use case in which those of them count that name none, because the keys up to
    `after` were written with it.
    """

    first: int = 0
    next: int = 0
    after: Key = ("", "")
    default: str | None = None


MARK_FIELDS = "popularity_first", "popularity_next", "popularity_after", "popularity_default"
"""Fields of a mark in the hash of a partition position."""


def read_mark(values: Sequence[bytes | None]) -> Mark:
    """The mark in the values of MARK_FIELDS; without values, the mark of the log's beginning."""
    first, next_, after, default = values
    key, _, item_id = (after or b"").decode().partition(" ")
    # an older release without buckets left an unfinished cut of popularity alone, in the same order
    if key and ":" not in key:
        key = keys.popular(key)
    return Mark(int(first or 0), int(next_ or 0), (key, item_id), (default or b"").decode() or None)


class Piece(NamedTuple):
    """Sums to write in one transaction, and the mark to write with them (None: unchanged).

    `before`: the mark that Redis must still have; with another mark, another process has written
    these sums. None: not compared.
    """

    sums: list[tuple[Key, float]]
    mark: Mark | None
    before: Mark | None


class PendingPopularity:
    """The popularity of one partition that is not in Redis yet.

    `add` gets every event from `mark.first` on that is valid and no duplicate, in offset order.
    """

    def __init__(self, use_cases: UseCases, half_life_days: float, mark: Mark) -> None:
        self.mark = mark
        self._use_cases, self._half_life_days = use_cases, half_life_days
        self._interrupted: Groups = {}
        self._unwritten: _Cut | None = None
        self._size = PIECE
        self._collecting: Groups = {}
        self._current: dict[str | None, _Group] = {}
        self._events = 0
        self._since = time.monotonic()

    def add_all(
        self,
        offsets: Sequence[int],
        events: Sequence[Interaction],
        broker_times: Sequence[float],
    ) -> None:
        """As `add` of one event after the other, at a lower cost. All have the same length."""
        if not events:
            return
        timestamps = [event.timestamp for event in events]
        delays = list(map(sub, broker_times, timestamps))
        current: dict[str | None, tuple[dict[str, float], Mapping[str, float]]] = {}
        if min(delays) >= 0 and max(delays) < trending.FINE.window:
            oldest, newest = min(timestamps), max(timestamps)
            current = {
                use_case: (group.weights, group.of_types)
                for use_case, group in self._current.items()
                if group.begin <= oldest and newest < group.end
            }
        for offset, event, broker_time in zip(offsets, events, broker_times, strict=True):
            group = current.get(event.use_case)
            if group is None or event.value is not None:
                self.add(offset, event, broker_time)
                continue
            weights, of_types = group
            if weight := of_types[event.event_type]:
                item_id = event.item_id
                weights[item_id] = weights.get(item_id, 0.0) + weight
                self._events += 1

    def add(self, offset: int, event: Interaction, broker_time: float) -> None:
        """Add an event with its broker time (seconds); Redis already has events below the mark."""
        timestamp = event.timestamp
        current = self._current.get(event.use_case)
        if current is not None and event.value is None:
            begin, end, weights, of_types = current
            if begin <= timestamp < end and 0 <= broker_time - timestamp < trending.FINE.window:
                if weight := of_types[event.event_type]:
                    weights[event.item_id] = weights.get(event.item_id, 0.0) + weight
                    self._events += 1
                return
        if offset < self.mark.first:
            return
        if offset >= self.mark.next:
            groups, default = self._collecting, self._use_cases.default
        else:
            groups, default = self._interrupted, self.mark.default
        use_case = event.use_case or default
        weight = self._use_cases.weight(event.event_type, event.value, use_case)
        if not weight:
            return
        happened = min(broker_time, timestamp)
        tier = trending.tier(broker_time - happened)
        group = use_case, int(timestamp // HOUR), int(happened // _SLOT) if tier else 0, tier
        group_weights = groups.setdefault(group, {})
        group_weights[event.item_id] = group_weights.get(event.item_id, 0.0) + weight
        self._events += 1
        begin = int(happened // _SLOT) * _SLOT
        if (
            tier == 2
            and happened == timestamp
            and groups is self._collecting
            and (current is None or current.begin < begin)
        ):
            self._current[event.use_case] = _Group(
                begin, begin + _SLOT, group_weights, self._use_cases.weights(use_case)
            )

    def due(self, position: int) -> bool:
        """Whether there is a piece to write even without events: a cut is unfinished or due."""
        return self.mark.first < self.mark.next or self._is_cut_due(position)

    def _is_cut_due(self, position: int) -> bool:
        age = time.monotonic() - self._since
        return position > self.mark.next and (
            age > FLUSH_S
            or self._events >= FLUSH_EVENTS
            or (age > FEW_S and self._fits_one_piece())
        )

    def _fits_one_piece(self) -> bool:
        return self._events <= PIECE // 3 or (
            len(self._collecting) <= PIECE
            and sum(len(weights) * (1 + tier) for (*_, tier), weights in self._collecting.items())
            <= PIECE
        )

    def piece(self, position: int, *, whole: bool = False) -> Piece:
        """The piece for the transaction that moves the position to `position`.

        Every event below `position` has been added. `whole`: cut now, even if no cut is due.
        """
        before = self.mark
        # the first piece of this owner: continue the cut whose mark is in Redis
        if self._unwritten is None:
            self._unwritten = _Cut(self._interrupted, self._half_life_days, before.after)
            self._interrupted = {}
        is_due = self._is_cut_due(position) or (whole and position > before.next)
        if not self._unwritten and is_due:
            self._unwritten = _Cut(self._collecting, self._half_life_days)
            self._collecting, self._current = {}, {}
            self._size = max(PIECE, self._unwritten.most // PIECES)
            self._events, self._since = 0, time.monotonic()
            self.mark = Mark(before.next, position, default=self._use_cases.default)
        sums = self._unwritten.take(self._size)
        if self._unwritten:
            self.mark = self.mark._replace(after=sums[-1][0])
        elif self.mark.first < self.mark.next:
            self.mark = self.mark._replace(first=self.mark.next, after=("", ""))
        return Piece(sums, self.mark if self.mark != before else None, before)


class _Cut:
    """The sums of some groups by key, in the order of the keys.

    The order of the events does not change a sum (popularity._STEPS). Each sorted set is summed
    only when it is written: all sets together take a tenth of a second, which would delay events.
    """

    def __init__(self, groups: Groups, half_life_days: float, after: Key = ("", "")) -> None:
        """`after`: the last key that is already written."""
        now = time.time()
        self._after = after
        self._ready: list[tuple[Key, float]] = []
        self._items: dict[int, list[str]] = {}
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
            len(weights) for groups_of_key in self._weights.values() for weights, _ in groups_of_key
        )
        """Upper bound of the number of sums."""

    def __bool__(self) -> bool:
        return bool(self._ready or self._sets)

    def take(self, count: int) -> list[tuple[Key, float]]:
        """The next `count` sums; fewer when there are no more."""
        while self._sets and len(self._ready) < count:
            self._ready += self._sums(self._sets.pop())
        sums, self._ready = self._ready[:count], self._ready[count:]
        return sums

    def _sums(self, key: str) -> list[tuple[Key, float]]:
        groups = self._weights.pop(key)
        if len(groups) == 1:
            [(sums, factor)] = groups
            items = self._sorted(sums)
        else:
            sums, factor = {}, 1.0
            for weights, of_group in groups:
                for item_id, weight in weights.items():
                    sums[item_id] = sums.get(item_id, 0.0) + weight * of_group
            items = sorted(sums)
        if key == self._after[0]:
            items = [item_id for item_id in items if item_id > self._after[1]]
        return [((key, item_id), sums[item_id] * factor) for item_id in items]

    def _sorted(self, weights: dict[str, float]) -> list[str]:
        """The items in their order. Most groups are in three sets, and are sorted once."""
        items = self._items.get(id(weights))
        if items is None:
            items = self._items[id(weights)] = sorted(weights)
        return items
