"""The popular engine: ranks by popularity in the use case, then overall, then newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.types import Reason, Request, UserState
from engines.base import NO_OPINION, Engine, Scores, Scoring
from engines.cache import LruCache
from engines.catalogue import Catalogue, Mask
from models.popular import Popularity

ORDER_CACHE_SIZE = 64
"""Cached orders, one for each use case and window: more than a configuration has."""

Windows = Mapping[str, Popularity]
"""Window ("hour", "day", "week") -> popularity within it; a window without data yet is absent."""


class Head(NamedTuple):
    """The first items of an order: catalogue `rows` (n,) int64 and `shares` (n,) f64.

    The share of an item is its weight over that of the most popular item, so in [0, 1]. `by_id`:
    item id -> share, only those of items with a weight.
    """

    rows: NDArray[np.int64]
    shares: NDArray[np.float64]
    by_id: Mapping[str, float]


class PopularEngine(Engine):
    """The last engine of the chain.

    It scores every item, so an answer is empty only if no item is eligible. A score is the share of
    the most popular item's weight: 1 for that item, 0 for an item without events.
    """

    name = "popular"

    def __init__(
        self,
        popularity: Popularity,
        catalogue: Catalogue,
        windows: Windows | None = None,
        previous: PopularEngine | None = None,
    ) -> None:
        """`previous`: the engine that this one replaces.

        If it has the same windows and the same catalogue, its orders of the windows are reused.
        """
        self.popularity, self.windows = popularity, {} if windows is None else windows
        same_windows = (
            previous is not None
            and previous.windows is self.windows
            and previous.catalogue is catalogue
        )
        new_popularity = (popularity,) if same_windows else (popularity, *self.windows.values())
        self.catalogue = catalogue.with_bare(
            item_id
            for by_use_case in new_popularity
            for entries in by_use_case.values()
            for item_id, _ in entries
        )
        reusable = previous if same_windows and self.catalogue is catalogue else None
        self._heads: LruCache[Head] = (
            LruCache(ORDER_CACHE_SIZE) if reusable is None else reusable._heads
        )
        self._scorings: LruCache[PopularScoring] = LruCache(ORDER_CACHE_SIZE)
        self._newest = NewestScoring(self.catalogue)

    def score(self, state: UserState, request: Request) -> PopularScoring:  # noqa: ARG002 - the same for every user
        """Scores by the popularity in the request's use case, ties by the sum over all use cases.

        Without a use case by that sum. With a window that has data, items that are popular within
        it come first, then all others in the order without a window. Never raises NotApplicable.
        """
        key = None if request.use_case is None else (request.use_case.name, request.use_case.role)
        window = request.window
        if window is None or window not in self.windows:
            return self._scorings.get(key, lambda: self._scoring(key))
        return self._scorings.get((key, window), lambda: self._window_scoring(window, key))

    def _scoring(self, key: tuple[str, str] | None) -> PopularScoring:
        overall = _sum(self.popularity)
        if key is None:
            return PopularScoring(
                _head(self.catalogue, overall, overall),
                overall,
                "popular now",
                self._newest,
                self.catalogue,
            )
        name, role = key
        head = _head(self.catalogue, dict(self.popularity.get(name, ())), overall)
        return PopularScoring(head, overall, f"popular with {role}s", self._newest, self.catalogue)

    def _window_scoring(self, window: str, key: tuple[str, str] | None) -> PopularScoring:
        def head() -> Head:
            weights = (
                _sum(self.windows[window])
                if key is None
                else dict(self.windows[window].get(key[0], ()))
            )
            return _head(self.catalogue, weights, weights)

        rest = self._scorings.get(key, lambda: self._scoring(key))
        text = f"popular{'' if key is None else f' with {key[1]}s'} in the last {window}"
        return PopularScoring(self._heads.get((key, window), head), {}, text, rest, self.catalogue)


class NewestScoring(Scoring):
    """The whole catalogue with a score of 0, newest first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.scores = np.where(catalogue.alive, 0.0, NO_OPINION)

    def top(self, eligible: Mask, limit: int) -> list[int]:
        """The `limit` newest eligible rows."""
        newest = self._catalogue.newest
        best: list[int] = newest[eligible[newest]][:limit].tolist()
        return best

    def rank(self, row: int, eligible: Mask) -> int | None:
        """Rank in the order of `top`, from 1; None for a dead row."""
        if self.scores[row] == NO_OPINION:
            return None
        newest = self._catalogue.newest
        return 1 + int(np.count_nonzero(eligible[newest[: int(np.flatnonzero(newest == row)[0])]]))

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The same reason for every row: the item is new."""
        return [[Reason(kind="new", text="new in the catalogue", contribution=0.0)] for _ in rows]


class PopularScoring(Scoring):
    """An order of the whole catalogue, shared by all users: a head, then `rest` with a score of 0.

    The scores are float64: shares of items whose events are years old are below the range of
    float32.
    """

    def __init__(
        self,
        head: Head,
        overall: Mapping[str, float],
        text: str,
        rest: Scoring,
        catalogue: Catalogue,
    ) -> None:
        """`text`: the reason for an item with a weight in the head.

        `overall`: item id -> popularity over all use cases, which ranks the head's items without a
        weight.
        """
        self._head, self._overall, self._text, self._rest, self._catalogue = (
            head,
            overall,
            text,
            rest,
            catalogue,
        )
        self.scores = np.where(rest.scores == NO_OPINION, NO_OPINION, 0.0)
        self.scores[head.rows] = head.shares

    @cached_property
    def prior(self) -> Scores:
        """(n_rows,) f32 in [0, 1]: prior score of each item, for a user without history.

        It is the square root of the score: weights follow a power law, and without the root all but
        the first few items would be almost equal.
        """
        return np.sqrt(np.maximum(self.scores, 0.0)).astype(np.float32)

    def top(self, eligible: Mask, limit: int) -> list[int]:
        """The first `limit` eligible rows of the head, then of the rest."""
        rows = self._head.rows
        best: list[int] = rows[eligible[rows]][:limit].tolist()
        if len(best) < limit:
            best += self._rest.top(self._tail(eligible), limit - len(best))
        return best

    def rank(self, row: int, eligible: Mask) -> int | None:
        """Rank in the order of `top`, from 1; None for a dead row."""
        if self.scores[row] == NO_OPINION:
            return None
        rows = self._head.rows
        position = np.flatnonzero(rows == row)
        if len(position):
            return 1 + int(np.count_nonzero(eligible[rows[: position[0]]]))
        rank = self._rest.rank(row, self._tail(eligible))
        return None if rank is None else rank + int(np.count_nonzero(eligible[rows]))

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """Where or when each row is popular; outside of the head the reason of the rest."""
        return [self._reasons(row) for row in rows]

    def _reasons(self, row: int) -> list[Reason]:
        item_id = self._catalogue.ids[row]
        if item_id in self._head.by_id:
            return [Reason(kind="popular", text=self._text, contribution=self._head.by_id[item_id])]
        if self._overall.get(item_id, 0.0) > 0:
            return [Reason(kind="popular", text="popular now", contribution=0.0)]
        return self._rest.reasons([row])[0]

    def _tail(self, eligible: Mask) -> Mask:
        """(n_rows,) bool: `eligible` without the rows of the head."""
        tail = eligible.copy()
        tail[self._head.rows] = False
        return tail


def _head(catalogue: Catalogue, weights: Mapping[str, float], overall: Mapping[str, float]) -> Head:
    """The head of the items in `weights` or `overall` (item id -> weight), sorted by both.

    `weights` comes first, an absent item has 0; `overall` breaks ties.
    """
    rows = catalogue.rows
    ranked = sorted(
        (item_id for item_id in overall.keys() | weights.keys() if item_id in rows),
        key=lambda item_id: (-weights.get(item_id, 0.0), -overall.get(item_id, 0.0), item_id),
    )
    shares = np.array([weights.get(item_id, 0.0) for item_id in ranked], dtype=np.float64)
    if ranked and shares[0] > 0:
        shares /= shares[0]
    return Head(
        np.array([rows[item_id] for item_id in ranked], dtype=np.int64),
        shares,
        {
            item_id: share
            for item_id, share in zip(ranked, shares.tolist(), strict=True)
            if weights.get(item_id, 0.0) > 0
        },
    )


def _sum(popularity: Popularity) -> dict[str, float]:
    """Item id -> sum over all use cases."""
    sums: dict[str, float] = {}
    for entries in popularity.values():
        for item_id, score in entries:
            sums[item_id] = sums.get(item_id, 0.0) + score
    return sums
