"""What others choose now: by use case first, then over all, and then the rest of the catalogue, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.types import Reason, Request, UserState
from engines.base import NO_OPINION, Engine, Scoring
from engines.cache import Bounded
from engines.catalogue import Catalogue, Mask
from models.popular import Popularity

ORDERS_KEPT = 64
"""Orders that are kept, by use case and window; more than anybody configures."""

Windows = Mapping[str, Popularity]
"""Window ("hour", "day", "week") -> what was popular within it; a window that is not known yet is not there."""


class PopularEngine(Engine):
    """The last resort, which has an opinion on every item, so that an answer is never empty while an item is eligible."""

    name = "popular"

    def __init__(self, popularity: Popularity, catalogue: Catalogue, windows: Windows | None = None) -> None:
        self.popularity, self.windows = popularity, windows or {}
        every = (popularity, *self.windows.values())
        self.catalogue = catalogue.with_bare(item_id for each in every for entries in each.values() for item_id, _ in entries)
        self._scorings: Bounded[PopularScoring] = Bounded(ORDERS_KEPT)

    def score(self, state: UserState, request: Request) -> PopularScoring:  # noqa: ARG002 - the same for every user
        """Never raises NotApplicable. With a use case: its own popularity, ties by the sum over all use cases; else that sum.

        With a window that is known, what was popular within it comes first, and then the rest as without.
        """
        use_case, window = request.use_case, request.window if request.window in self.windows else None
        name, role = (None, "") if use_case is None else (use_case.name, f" with {use_case.role}s")
        return self._scorings.get((name, role, window), lambda: self._scoring(name, role, window))

    def _scoring(self, name: str | None, role: str, window: str | None) -> PopularScoring:
        overall = _sum(self.popularity)
        chosen = self.popularity if window is None else self.windows[window]
        first = _sum(chosen) if name is None else dict(chosen.get(name, ()))
        when = f" in the last {window}" if window is not None else "" if name is not None else " now"
        return PopularScoring(self.catalogue, first, overall, f"popular{role}{when}")


def _sum(popularity: Popularity) -> dict[str, float]:
    """Item -> sum over all use cases."""
    sums: dict[str, float] = {}
    for entries in popularity.values():
        for item_id, score in entries:
            sums[item_id] = sums.get(item_id, 0.0) + score
    return sums


class PopularScoring(Scoring):
    """An order of the whole catalogue, shared by all users. Its scores are float64: forward-decayed ones outgrow float32."""

    def __init__(self, catalogue: Catalogue, first: dict[str, float], overall: dict[str, float], text: str) -> None:
        """`first`: item -> score that ranks; `overall` ranks those that it leaves equal or out, at a score of 0."""
        self._catalogue = catalogue
        self._text = text
        rows = catalogue.rows
        ranked = sorted(
            (item_id for item_id in overall.keys() | first.keys() if item_id in rows),
            key=lambda item_id: (-first.get(item_id, 0.0), -overall.get(item_id, 0.0), item_id),
        )
        self._head = np.array([rows[item_id] for item_id in ranked], dtype=np.int64)
        self._first, self._overall = first, overall
        by_row = np.full(len(catalogue.ids), NO_OPINION)
        by_row[catalogue.alive] = 0.0
        by_row[self._head] = [first.get(item_id, 0.0) for item_id in ranked]
        self.scores = by_row

    def top(self, eligible: Mask, limit: int) -> list[int]:
        """The most popular, then the newest."""
        best: list[int] = self._head[eligible[self._head]][:limit].tolist()
        if len(best) < limit:
            tail = eligible.copy()
            tail[self._head] = False
            newest = self._catalogue.newest
            best += newest[tail[newest]][: limit - len(best)].tolist()
        return best

    def rank(self, row: int, eligible: Mask) -> int | None:
        """Rank in the order of `top`."""
        if self.scores[row] == NO_OPINION:
            return None
        at = np.flatnonzero(self._head == row)
        if len(at):
            return 1 + int(np.count_nonzero(eligible[self._head[: at[0]]]))
        newest, tail = self._catalogue.newest, eligible.copy()
        tail[self._head] = False
        before = newest[: int(np.flatnonzero(newest == row)[0])]
        return 1 + int(np.count_nonzero(eligible[self._head])) + int(np.count_nonzero(tail[before]))

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """With whom each row is popular, or that it is new."""
        return [[self._reason(self._catalogue.ids[row])] for row in rows]

    def _reason(self, item_id: str) -> Reason:
        if self._first.get(item_id, 0.0) > 0:
            return Reason(kind="popular", text=self._text, contribution=self._first[item_id])
        if self._overall.get(item_id, 0.0) > 0:
            return Reason(kind="popular", text="popular now", contribution=0.0)
        return Reason(kind="new", text="new in the catalogue", contribution=0.0)
