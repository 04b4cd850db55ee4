"""The ALS engine: scores every item by the user's vector.

A live worker has stored the vector, or it is folded in during the read. The reasons come from the
decomposition of the score over the user's history (Hu, Koren and Volinsky 2008, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.types import HistoryEvent, Reason, Request, UserState
from core.use_cases import UseCases
from engines.base import (
    NO_OPINION,
    REASON_ITEMS,
    Engine,
    NotApplicable,
    Scores,
    Scoring,
    item_weights,
    name,
    weigher,
)
from engines.catalogue import Catalogue
from models.als import ALSModel
from models.als.fold import Fold
from models.als.new_items import NewItemFactors

KIND = "similar_to_your_items"
Freshness = Literal["fresh", "stale", "missing", "other_model"]


class FoldedHistory(NamedTuple):
    """A fold-in and the ids of the items it used, in its order."""

    fold: Fold
    items: list[str]


class ALSEngine(Engine):
    """Scores by the user's history alone, so a user unknown to training is served like any other.

    An item that came after training is scored by its factors in `new_items`. These never enter a
    user's vector, which therefore stays a function of the history and the model.
    """

    name = "als"

    def __init__(
        self,
        model: ALSModel,
        catalogue: Catalogue,
        use_cases: UseCases,
        previous: ALSEngine | None = None,
        *,
        made_with: str = "",
        new_items: NewItemFactors | None = None,
    ) -> None:
        """`previous`: an engine of the same model; if `catalogue` extends its catalogue, only the
        new rows are computed.

        `made_with` (engines.fold.made_with): a stored vector is used only if it was made with the
        same; empty: none is used. `new_items`: factors made with the same.
        """
        self.model, self.use_cases, self.made_with = model, use_cases, made_with
        self.new_items = new_items or NewItemFactors.none()
        extends = (
            previous is not None
            and previous.model is model
            and catalogue.extends(previous.catalogue)
        )
        self.catalogue = catalogue if extends else catalogue.with_bare(model.item_ids.ids)
        reused: NDArray[np.int64] = (
            previous._trained if extends and previous is not None else np.zeros(0, dtype=np.int64)
        )
        self._trained: NDArray[np.int64] = np.concatenate(
            [reused, model.item_ids.rows(self.catalogue.ids[len(reused) :])]
        )
        # Catalogue row -> index of its factors: those of the model, then those in `new_items`, then
        # one that stands for NO_OPINION.
        self._factor_index: NDArray[np.int64] = self._trained.copy()
        for index, item_id in enumerate(self.new_items.ids.ids, len(model.item_ids)):
            if (row := self.catalogue.rows.get(item_id)) is not None and self._trained[row] < 0:
                self._factor_index[row] = index
        self._factor_index[self._factor_index < 0] = len(model.item_ids) + len(self.new_items)

    def score(self, state: UserState, request: Request) -> ALSScoring:
        """Scores by the stored vector if it is fresh, else by a fold-in.

        Raises NotApplicable: no item of the history has factors.
        """
        weights = weigher(self.use_cases, request)
        stored = self._stored(state, weights)
        if stored is not None:
            return ALSScoring(self, stored, state.history, weights)
        folded = self.fold(state.history, weights)
        return ALSScoring(self, folded.fold.vector, state.history, weights, folded)

    def similar(self, item_id: str) -> Scoring:
        """Scores by the cosine of item factors. Raises NotApplicable: the item has none."""
        factors = self.item_factors(item_id)
        cosines = self.model.cosines(factors), _cosines(self.new_items.factors, factors)
        text = f"liked by the same users as {name(self.catalogue, item_id)}"
        return SimilarScoring(self._by_row(*cosines), text, item_id)

    def item_factors(self, item_id: str) -> Scores:
        """The factors (f,) f32 of an item. Raises NotApplicable: it has none."""
        row, new_row = self.model.item_ids.row(item_id), self.new_items.ids.row(item_id)
        if max(row, new_row) < 0:
            raise NotApplicable(f"{item_id} is not in the ALS model")
        known = self.model.item_factors if row >= 0 else self.new_items.factors
        factors: Scores = known[row if row >= 0 else new_row]
        return factors

    def freshness(self, state: UserState) -> Freshness:
        """Whether the stored vector in `state` is this model's fold-in of all the user's events."""
        vector = state.als
        if vector is None or len(vector.vector) != 4 * self.model.factors:
            return "missing"
        if vector.made_with != self.made_with:
            return "other_model"
        return "fresh" if vector.as_of == state.events else "stale"

    def fold(self, history: Sequence[HistoryEvent], weights: UseCases) -> FoldedHistory:
        """Fold a history in. Raises NotApplicable when no item of it has factors."""
        by_item = item_weights(history, weights)
        items = list(by_item)
        rows, values = (
            self.model.item_ids.rows(items),
            np.fromiter(by_item.values(), dtype=np.float32, count=len(by_item)),
        )
        in_model = rows >= 0
        if not in_model.all():
            rows, values = rows[in_model], values[in_model]
            items = [
                item_id
                for item_id, has_factors in zip(items, in_model.tolist(), strict=True)
                if has_factors
            ]
        if not items:
            raise NotApplicable(
                "the user has no history"
                if not history
                else "no item of the user's history is in the ALS model"
            )
        return FoldedHistory(self.model.fold(rows, values, checked=True), items)

    def scores(self, vector: Scores) -> Scores:
        """Scores (n_rows,) of a user vector (f,), by catalogue row."""
        return self._by_row(
            self.model.scores(vector), self.new_items.factors @ vector if self.new_items else None
        )

    def factors(self, rows: Sequence[int]) -> Scores:
        """Item factors (n, f) f32 of catalogue rows that have some."""
        indices, trained = self._factor_index[list(rows)], len(self.model.item_ids)
        if not self.new_items:
            return self.model.item_factors[indices]
        factors = np.empty((len(indices), self.model.factors), dtype=np.float32)
        is_new = indices >= trained
        factors[~is_new] = self.model.item_factors[indices[~is_new]]
        factors[is_new] = self.new_items.factors[indices[is_new] - trained]
        return factors

    def _stored(self, state: UserState, weights: UseCases) -> Scores | None:
        """The stored vector (f,) f32 if a fold-in would give the same, else None.

        That is: it is fresh, and `weights` weigh this user's events as the default weights do.
        """
        if self.freshness(state) != "fresh" or state.als is None:
            return None
        requested, default = weights.event_types, self.use_cases.event_types
        if requested is not default and any(
            requested.get(name, 0.0) != default.get(name, 0.0) for name in state.counts
        ):
            return None
        vector = np.frombuffer(state.als.vector, dtype="<f4")
        # zeros: the fold-in raises, and says why
        return vector if vector.any() and np.isfinite(vector).all() else None

    def _by_row(self, trained: Scores, new: Scores | None) -> Scores:
        """Scores by catalogue row (n_rows,).

        From the scores of the model's items (n_items,) and of new items (n_new,).
        """
        parts = [trained, _UNSCORED] if new is None else [trained, new, _UNSCORED]
        # all indices are valid; "clip" skips the check
        scores: Scores = np.concatenate(parts).take(self._factor_index, mode="clip")
        return scores


_UNSCORED: Scores = np.array([NO_OPINION], dtype=np.float32)


def _cosines(factors: Scores, other: Scores) -> Scores | None:
    """Cosine (n,) of each row of `factors` (n, f) with `other` (f,).

    0 where either is all zeros; None where there are no rows.
    """
    if not len(factors):
        return None
    sizes = np.linalg.norm(factors, axis=1) * np.linalg.norm(other)
    cosines: Scores = np.divide(
        factors @ other, sizes, out=np.zeros(len(factors), dtype=np.float32), where=sizes > 0
    )
    return cosines


class ALSScoring(Scoring):
    """Scores by a user vector.

    For reasons the history is folded in, unless that made the vector.
    """

    def __init__(
        self,
        engine: ALSEngine,
        vector: Scores,
        history: Sequence[HistoryEvent],
        weights: UseCases,
        folded: FoldedHistory | None = None,
    ) -> None:
        self.scores = engine.scores(vector)
        self._engine, self._history, self._weights = engine, history, weights
        if folded is not None:
            self._folded = folded

    @cached_property
    def _folded(self) -> FoldedHistory:
        return self._engine.fold(self._history, self._weights)

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The items of the history that contribute most to each score."""
        if not rows:
            return []
        fold, items = self._folded
        shares = fold.explain(self._engine.factors(rows))
        best = (-shares).argsort(axis=1, kind="stable")[:, :REASON_ITEMS]
        largest = shares[np.arange(len(rows))[:, None], best].tolist()
        indices = best.tolist()
        names = {
            index: name(self._engine.catalogue, items[index])
            for index in set(chain.from_iterable(indices))
        }
        return [
            [_reason(row_shares, row_indices, items, names)]
            for row_shares, row_indices in zip(largest, indices, strict=True)
        ]

    def contributions(self, row: int) -> list[Reason]:
        """One reason for each item of the history; their contributions add up to the score."""
        if self.scores[row] == NO_OPINION:
            return []
        fold, items = self._folded
        shares = fold.explain(self._engine.factors([row]))[0]
        return [
            Reason(
                kind=KIND,
                text=f"your events with {name(self._engine.catalogue, items[index])}",
                items=[items[index]],
                contribution=float(shares[index]),
            )
            for index in np.argsort(-shares, kind="stable").tolist()
        ]


def _reason(
    shares: list[float], indices: list[int], items: list[str], names: dict[int, str]
) -> Reason:
    """The reason by the largest contributions.

    `shares`: the contributions, largest first; `indices`: their places within `items`.
    """
    if shares[-1] <= 0:  # an item that lowers the score is no reason, unless all do
        count = sum(share > 0 for share in shares) or 1
        shares, indices = shares[:count], indices[:count]
    return Reason(
        kind=KIND,
        text="similar to " + ", ".join(map(names.__getitem__, indices)),
        items=list(map(items.__getitem__, indices)),
        contribution=sum(shares),
    )


class SimilarScoring(Scoring):
    """Similarity to one item, which is the one reason of every score."""

    def __init__(self, scores: Scores, text: str, item_id: str) -> None:
        self.scores = scores
        self._reason = Reason(kind="similar_item", text=text, items=[item_id])

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The same reason for each row."""
        return [[self._reason] for _ in rows]
