"""The interface of an engine: it scores all catalogue rows for a user and gives reasons."""

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
"""Score of an item that an engine cannot score: the engine never shows it."""
GROUP = 64
"""Size of a group in the search for the best few of thousands of scores. Only the largest score of
each group is compared at first, which halves the time.
"""
REASON_ITEMS = 3
"""Items or attributes named in one reason: what a person reads on a card."""


class NotApplicable(Exception):
    """An engine cannot score for this user or item.

    This is expected: the message becomes the cause of the fallback.
    """


class Scoring(ABC):
    """One engine's scores of the whole catalogue for one request.

    `scores` (n_rows,) f32 by catalogue row, NO_OPINION where the engine has none.
    """

    scores: Scores

    @abstractmethod
    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The main reasons for the score of each of `rows`, for the items of an answer."""

    def contributions(self, row: int) -> list[Reason]:
        """Everything that the score of `row` consists of, largest first, for `explain`."""
        return self.reasons([row])[0]

    def top(self, eligible: Mask, limit: int) -> list[int]:
        """The best `limit` rows among `eligible`, best first."""
        return top_rows(self.scores, eligible, limit)

    def rank(self, row: int, eligible: Mask) -> int | None:
        """Rank of `row`, from 1, among `eligible` rows and itself; None without a score."""
        score = self.scores[row]
        if score == NO_OPINION:
            return None
        better = self.scores > score
        better[:row] |= self.scores[:row] == score
        return 1 + int(np.count_nonzero(better & eligible))


class Engine(ABC):
    """One way to score items. `name` stands in the answer's `method_used`."""

    name: str
    catalogue: Catalogue

    @abstractmethod
    def score(self, state: UserState, request: Request) -> Scoring:
        """Scores of every item for this user. Raises NotApplicable."""

    def similar(self, item_id: str) -> Scoring:
        """Scores of every item by its similarity to `item_id`. Raises NotApplicable."""
        raise NotApplicable(
            f"{self.name} does not compare items, so it says nothing about {item_id}"
        )

    def over(self, engines: Mapping[str, Engine]) -> Engine:  # noqa: ARG002 - for engines that use other engines
        """The same engine with `engines` (by name) in place of the other engines that it uses."""
        return self

    def recommend(self, state: UserState, request: Request) -> list[ScoredItem]:
        """The best items for this user that pass the request's filters, best first.

        None where the engine cannot score.
        """
        try:
            scoring = self.score(state, request)
        except NotApplicable:
            return []
        return self.pick(
            scoring, eligible(self.catalogue, state, request), request.limit, request.reasons
        )

    def pick(
        self, scoring: Scoring, allowed: Mask, limit: int, with_reasons: bool = True
    ) -> list[ScoredItem]:
        """The best `limit` of the `allowed` rows."""
        rows = scoring.top(allowed, limit)
        ids, scores = self.catalogue.ids, scoring.scores
        reasons_by_row = scoring.reasons(rows) if with_reasons else [[] for _ in rows]
        return [
            ScoredItem(
                item_id=ids[row], score=float(scores[row]), engine=self.name, reasons=reasons
            )
            for row, reasons in zip(rows, reasons_by_row, strict=True)
        ]


def eligible(catalogue: Catalogue, state: UserState, request: Request) -> Mask:
    """Rows (n_rows,) bool that pass every filter of `request` for this user.

    The caller may change the array.
    """
    allowed = catalogue.mask(conditions(request)).copy()
    filters = request.filters
    if filters.exclude_seen:
        allowed[catalogue.rows_of([event.item_id for event in state.history])] = False
    if filters.exclude_items:
        allowed[catalogue.rows_of(filters.exclude_items)] = False
    return allowed


def top_rows(scores: NDArray[np.floating], allowed: Mask, limit: int) -> list[int]:
    """Rows of the `limit` highest finite scores among `allowed`, best first.

    Equal scores are ordered by row: answers repeat.
    """
    masked = scores.copy()
    np.copyto(masked, NO_OPINION, where=~allowed)
    limit = min(limit, len(masked))
    if limit <= 0:
        return []
    # The `limit`-th largest of the groups' maxima is a lower bound of the `limit`-th largest score.
    columns = len(masked) // GROUP
    maxima = (
        masked[: GROUP * columns].reshape(GROUP, columns).max(axis=0)
        if columns >= 4 * limit
        else masked
    )
    bound = _nth_largest(maxima, limit)
    rows = (masked >= bound if bound > NO_OPINION else masked > NO_OPINION).nonzero()[0]
    order = np.argsort(-masked[rows], kind="stable")[:limit]
    best: list[int] = rows[order].tolist()
    return best


def _nth_largest(scores: NDArray[np.floating], nth: int) -> float:
    return float(np.partition(scores, len(scores) - nth)[len(scores) - nth])


def item_weights(history: Sequence[HistoryEvent], weigher: UseCases) -> dict[str, float]:
    """Item id -> sum of its events' weights, where it is above 0.

    An event of a type that is no longer configured weighs 0.
    """
    type_weights = weigher.event_types
    # cache: a history repeats few types and values
    value_weights: dict[tuple[str, float], float] = {}
    weights: dict[str, float] = {}
    for event in history:
        event_type, value = event.event_type, event.value
        if value is None:
            weight = type_weights.get(event_type, 0.0)
        elif (cached := value_weights.get((event_type, value))) is not None:
            weight = cached
        else:
            weight = weigher.weight(event_type, value) if event_type in type_weights else 0.0
            value_weights[event_type, value] = weight
        if weight > 0:
            item_id = event.item_id
            weights[item_id] = weights.get(item_id, 0.0) + weight
    return weights


def weigher(use_cases: UseCases, request: Request) -> UseCases:
    """The event weights for this request: those of its use case, else the defaults."""
    if request.use_case is None:
        return use_cases
    return UseCases(request.use_case.weights, use_cases.by_name, use_cases.by_path)


def name(catalogue: Catalogue, item_id: str) -> str:
    """How an item is named to people: its title, or its id."""
    item = catalogue.get(item_id)
    return item.title if item is not None and item.title else item_id
