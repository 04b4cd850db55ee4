"""What every engine is: a function from a user's state and a request to scores by catalogue row, with reasons."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.types import HistoryEvent, Reason, Request, ScoredItem, UserState
from core.use_cases import UseCases
from engines.catalogue import Catalogue, Mask
from engines.selection.filters import conditions

Scores = NDArray[np.float32]

NO_OPINION = -np.inf
"""Score of an item that an engine can say nothing about: it is never shown by that engine."""
GROUP = 64
"""Scores of which only the largest is compared at first, when the best few of thousands are looked for: halves the time."""
REASON_ITEMS = 3
"""Items or attributes named in one reason: what a person reads on a card."""


class NotApplicable(Exception):
    """An engine has nothing to go by for this user or item. Expected: the message becomes the fallback's cause."""


class Scoring(ABC):
    """One engine's view of the whole catalogue for one request. `scores` (n_rows,) by catalogue row, NO_OPINION where it has none."""

    scores: Scores

    @abstractmethod
    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """Why each of `rows` scores as it does, in short: for a list that is shown."""

    def contributions(self, row: int) -> list[Reason]:
        """All that made the score of `row`, largest first: for `explain`."""
        return self.reasons([row])[0]

    def top(self, eligible: Mask, limit: int) -> list[int]:
        """The best `limit` rows among `eligible`, best first."""
        return top_rows(self.scores, eligible, limit)

    def rank(self, row: int, eligible: Mask) -> int | None:
        """Rank of `row` (from 1) among `eligible` rows and itself; None when the engine has no opinion on it."""
        score = self.scores[row]
        if score == NO_OPINION:
            return None
        better = self.scores > score
        better[:row] |= self.scores[:row] == score
        return 1 + int(np.count_nonzero(better & eligible))


class Engine(ABC):
    """`name` is what `method_used` says."""

    name: str
    catalogue: Catalogue

    @abstractmethod
    def score(self, state: UserState, request: Request) -> Scoring:
        """Raises NotApplicable."""

    def similar(self, item_id: str) -> Scoring:
        """Scores of every item by its likeness to `item_id`. Raises NotApplicable."""
        raise NotApplicable(f"{self.name} does not compare items, so it says nothing about {item_id}")

    def over(self, engines: Mapping[str, Engine]) -> Engine:  # noqa: ARG002 - for those that ask other engines
        """The same, asking newer `engines` by name where it asks others."""
        return self

    def recommend(self, state: UserState, request: Request) -> list[ScoredItem]:
        """The best items for this user that pass the request's filters, best first; none when there is nothing to go by."""
        try:
            scoring = self.score(state, request)
        except NotApplicable:
            return []
        return self.pick(scoring, eligible(self.catalogue, state, request), request.limit, request.reasons)

    def pick(self, scoring: Scoring, allowed: Mask, limit: int, with_reasons: bool = True) -> list[ScoredItem]:
        """The best `limit` of the `allowed` rows."""
        rows = scoring.top(allowed, limit)
        ids, scores = self.catalogue.ids, scoring.scores
        why = scoring.reasons(rows) if with_reasons else [[] for _ in rows]
        return [
            ScoredItem(item_id=ids[row], score=float(scores[row]), engine=self.name, reasons=reasons)
            for row, reasons in zip(rows, why, strict=True)
        ]


def eligible(catalogue: Catalogue, state: UserState, request: Request) -> Mask:
    """(n_rows,) bool: rows that pass every filter of `request` for this user. The caller's own copy."""
    allowed = catalogue.mask(conditions(request)).copy()
    filters = request.filters
    if filters.exclude_seen:
        allowed[catalogue.rows_of([event.item_id for event in state.history])] = False
    if filters.exclude_items:
        allowed[catalogue.rows_of(filters.exclude_items)] = False
    return allowed


def top_rows(scores: NDArray[np.floating], allowed: Mask, limit: int) -> list[int]:
    """Rows of the `limit` highest finite scores among `allowed`, best first; equal scores by row, so that answers are repeatable."""
    masked = scores.copy()
    np.copyto(masked, NO_OPINION, where=~allowed)
    limit = min(limit, len(masked))
    if limit <= 0:
        return []
    # Each row of a matrix made of the scores has a largest one: the `limit`-th largest of these is not above that of all scores.
    columns = len(masked) // GROUP
    least = _largest(masked[: GROUP * columns].reshape(GROUP, columns).max(axis=0) if columns >= 4 * limit else masked, limit)
    rows = (masked >= least if least > NO_OPINION else masked > NO_OPINION).nonzero()[0]
    order = np.argsort(-masked[rows], kind="stable")[:limit]
    best: list[int] = rows[order].tolist()
    return best


def _largest(scores: NDArray[np.floating], nth: int) -> float:
    return float(np.partition(scores, len(scores) - nth)[len(scores) - nth])


def item_weights(history: Sequence[HistoryEvent], weigher: UseCases) -> dict[str, float]:
    """Item -> sum of its events' weights, for weights above 0. An event of a type that is no longer configured counts nothing."""
    plain = weigher.event_types
    valued: dict[tuple[str, float], float] = {}  # a history repeats few types and values
    weights: dict[str, float] = {}
    for event in history:
        kind, value = event.event_type, event.value
        if value is None:
            weight = plain.get(kind, 0.0)
        else:
            known = valued.get((kind, value))
            weight = known if known is not None else valued.setdefault((kind, value), weigher.weight(kind, value) if kind in plain else 0.0)
        if weight > 0:
            item_id = event.item_id
            weights[item_id] = weights.get(item_id, 0.0) + weight
    return weights


def weigher(use_cases: UseCases, request: Request) -> UseCases:
    """What weighs events for this request: the use case's own weights, else the defaults."""
    if request.use_case is None:
        return use_cases
    return UseCases(request.use_case.weights, use_cases.by_name, use_cases.by_path)


def name(catalogue: Catalogue, item_id: str) -> str:
    """An item for people: its title, or its id."""
    item = catalogue.get(item_id)
    return item.title if item is not None and item.title else item_id
