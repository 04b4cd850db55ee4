"""What others choose now: by use case first, then over all, and then the rest of the catalogue, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.types import Reason, Request, UserState
from engines.base import NO_OPINION, Engine, Scores, Scoring
from engines.cache import Bounded
from engines.catalogue import Catalogue, Mask
from models.popular import Popularity

ORDERS_KEPT = 64
"""Orders that are kept, by use case and window; more than anybody configures."""

Windows = Mapping[str, Popularity]
"""Window ("hour", "day", "week") -> what was popular within it; a window that is not known yet is not there."""


class Head(NamedTuple):
    """Items in their order: `rows` (n,) by catalogue row, `weights` (n,) f64, `by_id` the weights above 0."""

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    by_id: Mapping[str, float]


class PopularEngine(Engine):
    """The last resort, which has an opinion on every item, so that an answer is never empty while an item is eligible."""

    name = "popular"

    def __init__(
        self, popularity: Popularity, catalogue: Catalogue, windows: Windows | None = None, previous: PopularEngine | None = None
    ) -> None:
        """`previous`: an engine whose windows may be the same; over the same catalogue their orders are taken over."""
        self.popularity, self.windows = popularity, {} if windows is None else windows
        kept = previous is not None and previous.windows is self.windows and previous.catalogue is catalogue
        shown = (popularity,) if kept else (popularity, *self.windows.values())
        self.catalogue = catalogue.with_bare(item_id for each in shown for entries in each.values() for item_id, _ in entries)
        kept = kept and self.catalogue is catalogue
        self._heads: Bounded[Head] = previous._heads if kept and previous is not None else Bounded(ORDERS_KEPT)
        self._scorings: Bounded[PopularScoring] = Bounded(ORDERS_KEPT)
        self._newest = NewestScoring(self.catalogue)

    def score(self, state: UserState, request: Request) -> PopularScoring:  # noqa: ARG002 - the same for every user
        """Never raises NotApplicable. With a use case: its own popularity, ties by the sum over all use cases; else that sum.

        With a window that is known, what was popular within it comes first, and then the rest as without.
        """
        key = None if request.use_case is None else (request.use_case.name, request.use_case.role)
        window = request.window
        if window is None or window not in self.windows:
            return self._scorings.get(key, lambda: self._scoring(key))
        return self._scorings.get((key, window), lambda: self._of_window(window, key))

    def _scoring(self, key: tuple[str, str] | None) -> PopularScoring:
        overall = _sum(self.popularity)
        if key is None:
            return PopularScoring(_head(self.catalogue, overall, overall), overall, "popular now", self._newest, self.catalogue)
        name, role = key
        head = _head(self.catalogue, dict(self.popularity.get(name, ())), overall)
        return PopularScoring(head, overall, f"popular with {role}s", self._newest, self.catalogue)

    def _of_window(self, window: str, key: tuple[str, str] | None) -> PopularScoring:
        def made() -> Head:
            weights = _sum(self.windows[window]) if key is None else dict(self.windows[window].get(key[0], ()))
            return _head(self.catalogue, weights, weights)

        rest = self._scorings.get(key, lambda: self._scoring(key))
        text = f"popular{'' if key is None else f' with {key[1]}s'} in the last {window}"
        return PopularScoring(self._heads.get((key, window), made), {}, text, rest, self.catalogue)


class NewestScoring(Scoring):
    """The whole catalogue at a score of 0, newest first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.scores = np.where(catalogue.alive, 0.0, NO_OPINION)

    def top(self, eligible: Mask, limit: int) -> list[int]:
        """The newest."""
        newest = self._catalogue.newest
        best: list[int] = newest[eligible[newest]][:limit].tolist()
        return best

    def rank(self, row: int, eligible: Mask) -> int | None:
        """Rank in the order of `top`."""
        if self.scores[row] == NO_OPINION:
            return None
        newest = self._catalogue.newest
        return 1 + int(np.count_nonzero(eligible[newest[: int(np.flatnonzero(newest == row)[0])]]))

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """That they are new."""
        return [[Reason(kind="new", text="new in the catalogue", contribution=0.0)] for _ in rows]


class PopularScoring(Scoring):
    """An order of the whole catalogue, shared by all users: a head, and then the `rest` at a score of 0.

    Its scores are float64: forward-decayed ones outgrow float32.
    """

    def __init__(self, head: Head, overall: Mapping[str, float], text: str, rest: Scoring, catalogue: Catalogue) -> None:
        """`text` says what the weights of the head are; `overall` has what popularity has put items without a weight into the head."""
        self._head, self._overall, self._text, self._rest, self._catalogue = head, overall, text, rest, catalogue
        self.scores = np.where(rest.scores == NO_OPINION, NO_OPINION, 0.0)
        self.scores[head.rows] = head.weights

    @cached_property
    def prior(self) -> Scores:
        """(n_rows,) f32 in [0, 1]: what an engine may expect of an item before it knows the user. The root of its weight over the largest:
        weights fall by powers, and by themselves would leave all but the first few items equal."""
        weights = np.maximum(self.scores, 0.0)
        highest = float(weights.max(initial=0.0))
        return np.sqrt(weights / highest if highest > 0 else weights).astype(np.float32)

    def top(self, eligible: Mask, limit: int) -> list[int]:
        """The head, then the rest in its own order."""
        rows = self._head.rows
        best: list[int] = rows[eligible[rows]][:limit].tolist()
        if len(best) < limit:
            best += self._rest.top(self._tail(eligible), limit - len(best))
        return best

    def rank(self, row: int, eligible: Mask) -> int | None:
        """Rank in the order of `top`."""
        if self.scores[row] == NO_OPINION:
            return None
        rows = self._head.rows
        at = np.flatnonzero(rows == row)
        if len(at):
            return 1 + int(np.count_nonzero(eligible[rows[: at[0]]]))
        behind = self._rest.rank(row, self._tail(eligible))
        return None if behind is None else behind + int(np.count_nonzero(eligible[rows]))

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """With whom or when each row is popular, or what the rest says of it."""
        return [self._reasons(row) for row in rows]

    def _reasons(self, row: int) -> list[Reason]:
        item_id = self._catalogue.ids[row]
        if item_id in self._head.by_id:
            return [Reason(kind="popular", text=self._text, contribution=self._head.by_id[item_id])]
        if self._overall.get(item_id, 0.0) > 0:
            return [Reason(kind="popular", text="popular now", contribution=0.0)]
        return self._rest.reasons([row])[0]

    def _tail(self, eligible: Mask) -> Mask:
        tail = eligible.copy()
        tail[self._head.rows] = False
        return tail


def _head(catalogue: Catalogue, first: Mapping[str, float], overall: Mapping[str, float]) -> Head:
    """`first`: item -> weight that ranks; `overall` ranks those that it leaves equal or out, at a weight of 0."""
    rows = catalogue.rows
    ranked = sorted(
        (item_id for item_id in overall.keys() | first.keys() if item_id in rows),
        key=lambda item_id: (-first.get(item_id, 0.0), -overall.get(item_id, 0.0), item_id),
    )
    return Head(
        np.array([rows[item_id] for item_id in ranked], dtype=np.int64),
        np.array([first.get(item_id, 0.0) for item_id in ranked], dtype=np.float64),
        {item_id: weight for item_id, weight in first.items() if weight > 0},
    )


def _sum(popularity: Popularity) -> dict[str, float]:
    """Item -> sum over all use cases."""
    sums: dict[str, float] = {}
    for entries in popularity.values():
        for item_id, score in entries:
            sums[item_id] = sums.get(item_id, 0.0) + score
    return sums
