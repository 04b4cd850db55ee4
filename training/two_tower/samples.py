"""Makes the training examples of Two-Tower: windows of users' events, in batches.

At each place of a window the answer is the next item that is new to the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.use_cases import UseCases
from models.id_map import IdMap
from models.two_tower import OLDER, ages
from training.data.dataset import Dataset

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

MISSING = -1
"""Stands for no role, no answer and no user in arrays of rows."""


@dataclass(frozen=True)
class Sequences:
    """Every user's events in time order, those without a time first.

    The events of user u are the rows start[u] to end[u].

    `item (n,) int64` rows of `items`, which are those with an event; `event_type (n,)`; `role (n,)`
    rows of `roles`, MISSING for none; `time (n,)` whole seconds since 1970, 0 if unknown; `upcoming
    (n + 1,)`: the first row, from here on, of an event with weight above 0 whose item is new to its
    user; n where there is none.
    """

    start: Integers
    end: Integers
    item: Integers
    event_type: Integers
    role: Integers
    time: npt.NDArray[np.float64]
    upcoming: Integers
    items: IdMap
    roles: list[str]

    @classmethod
    def of(
        cls, dataset: Dataset, where: npt.NDArray[np.bool_] | None, use_cases: UseCases
    ) -> Sequences:
        """The events in `where` (default: all).

        An event of a use case has the role of that use case.
        """
        rows = np.arange(dataset.events) if where is None else np.flatnonzero(where)
        time = np.floor(np.nan_to_num(dataset.timestamp[rows]))
        user = dataset.user[rows]
        order = np.lexsort((time, user))
        rows, user, time = rows[order], user[order], time[order]
        present, item = np.unique(dataset.item[rows], return_inverse=True)
        new = np.zeros(len(item), np.bool_)
        new[np.unique(user * np.int64(len(present)) + item, return_index=True)[1]] = True
        new &= dataset.weight[rows] > 0
        ends = np.cumsum(np.bincount(user, minlength=len(dataset.users)))
        named = [
            use_cases.by_name[name].role if name in use_cases.by_name else ""
            for name in dataset.use_cases
        ]
        roles = sorted({*named} - {""})
        # the last place, which MISSING (-1) reads
        of_use_case = np.array(
            [roles.index(name) if name else MISSING for name in named] + [MISSING], dtype=np.int64
        )
        return cls(
            start=np.append(0, ends[:-1]),
            end=ends,
            item=item,
            event_type=dataset.event_type[rows].astype(np.int64),
            role=of_use_case[dataset.use_case[rows]],
            time=time,
            upcoming=_upcoming(new),
            items=IdMap([dataset.items.ids[row] for row in present.tolist()]),
            roles=roles,
        )

    def without_last(self, rng: np.random.Generator, most: int) -> tuple[Sequences, HeldOut]:
        """Cut the sequences of at most `most` users before the last item that was new to them.

        Returns these items as held out.
        """
        last = np.full(len(self.start), MISSING)
        new = np.unique(self.upcoming[:-1])
        new = new[new < len(self.item)]
        last[np.searchsorted(self.end, new, side="right")] = new
        users = np.flatnonzero(last > self.start)
        if len(users) > most:
            users = np.sort(rng.choice(users, most, replace=False))
        end = self.end.copy()
        end[users] = last[users]
        return replace(self, end=end), HeldOut(users, self.item[last[users]])

    def shuffled(self, rng: np.random.Generator) -> Sequences:
        """Each user's events in an order drawn by `rng`.

        For data without order, in which a user has each item once.
        """
        rows, size = np.arange(len(self.item)), len(self.item)
        owner = np.searchsorted(self.start, rows, side="right") - 1
        in_training = rows < self.end[owner]
        order = np.lexsort((np.where(in_training, rng.random(size), 1.0), owner))
        new = np.zeros(size + 1, np.bool_)
        new[self.upcoming] = True
        moved = {
            name: getattr(self, name)[order] for name in ("item", "event_type", "role", "time")
        }
        return replace(self, upcoming=_upcoming(new[:-1][order]), **moved)

    def windows(self, length: int, rng: np.random.Generator) -> Windows:
        """Cut every user's events into windows of at most `length`.

        `rng` draws where the first one ends.
        """
        inputs = np.maximum(self.end - self.start - 1, 0)  # nothing follows the last event
        first = np.where(inputs > length, rng.integers(1, length + 1, len(inputs)), inputs)
        counts = np.where(self.end > self.start, 1 + -(-(inputs - first) // length), 0)
        users = np.repeat(np.arange(len(counts)), counts)
        nth = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = self.start[users] + np.where(nth > 0, first[users] + (nth - 1) * length, 0)
        end = np.minimum(
            self.start[users] + first[users] + nth * length, self.start[users] + inputs[users]
        )
        return Windows(users, start, end)

    def latest(self, users: Integers, length: int) -> Windows:
        """The latest `length` events of each of `users`."""
        return Windows(
            users, np.maximum(self.start[users], self.end[users] - length), self.end[users]
        )

    def batch(self, windows: Windows) -> Batch:
        """The windows as padded arrays."""
        sizes = windows.end - windows.start
        size = int(sizes.max(initial=0))
        places = np.arange(size)
        real = places < sizes[:, None]
        rows = np.where(real, windows.start[:, None] + places, 0)
        following = self.upcoming[
            np.column_stack([windows.start, np.where(real, rows + 1, len(self.item))])
        ]
        answers = np.where(
            following < self.end[windows.users][:, None],
            np.append(self.item, 0)[following],
            MISSING,
        )
        oldest = np.maximum(self.start[windows.users], windows.start - OLDER)
        before = windows.start - oldest
        offsets = np.cumsum(before) - before
        last = np.maximum(windows.end - 1, windows.start)
        return Batch(
            items=np.where(real, self.item[rows], 0),
            event_types=np.where(real, self.event_type[rows], 0),
            ages=ages(np.where(real, self.time[rows], 0.0)),
            answers=answers,
            sizes=sizes,
            roles=self.role[np.minimum(last, len(self.role) - 1)],
            older=self.item[np.repeat(oldest - offsets, before) + np.arange(before.sum())],
            older_from=offsets,
        )


def _upcoming(new: npt.NDArray[np.bool_]) -> Integers:
    """(n + 1,): the first true place of `new (n,)` from each place on, n where there is none."""
    places = np.where(new, np.arange(len(new)), len(new))
    return np.append(np.minimum.accumulate(places[::-1])[::-1], len(new))


@dataclass(frozen=True)
class HeldOut:
    """`users (n,)`: rows; `items (n,)`: the held-out item of each."""

    users: Integers
    items: Integers


@dataclass(frozen=True)
class Windows:
    """Window i holds the events start[i] to end[i] of users[i]."""

    users: Integers
    start: Integers
    end: Integers

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, rows: Any) -> Windows:
        return Windows(self.users[rows], self.start[rows], self.end[rows])

    def batches(self, tokens: int, rng: np.random.Generator) -> Iterator[Windows]:
        """Batches of windows of similar length, in an order drawn by `rng`.

        A batch has about `tokens` events, padding included.
        """
        sizes = self.end - self.start + 1
        order = np.argsort(sizes + rng.random(len(sizes)), kind="stable")[::-1]
        cuts = [0]
        while cuts[-1] < len(order):
            cuts.append(min(cuts[-1] + max(1, tokens // int(sizes[order[cuts[-1]]])), len(order)))
        for batch in rng.permutation(len(cuts) - 1).tolist():
            yield self[order[cuts[batch] : cuts[batch + 1]]]


@dataclass(frozen=True)
class Batch:
    """Windows as padded arrays.

    `items`, `event_types (b, s)` and `ages (b, s, s)` of events, padded at the end; `answers (b, s
    + 1)` the next new item after the profile alone and after each event, MISSING where there is
    none; `sizes (b,)` events of each window; `roles (b,)`; `older (n,)` the items before each
    window, those of window i from older_from[i] on.
    """

    items: Integers
    event_types: Integers
    ages: Integers
    answers: Integers
    sizes: Integers
    roles: Integers
    older: Integers
    older_from: Integers

    def part(self, rows: slice) -> Batch:
        """The windows `rows`, which are adjacent and at least one; padding stays."""
        ends = np.append(self.older_from[1:], len(self.older))[rows]
        older_from = self.older_from[rows]
        return Batch(
            items=self.items[rows],
            event_types=self.event_types[rows],
            ages=self.ages[rows],
            answers=self.answers[rows],
            sizes=self.sizes[rows],
            roles=self.roles[rows],
            older=self.older[older_from[0] : ends[-1]],
            older_from=older_from - older_from[0],
        )
