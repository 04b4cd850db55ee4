"""ALS: a user's vector, as the model plane keeps it or folded in on the spot, scores every item; the history says what carried a score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.types import HistoryEvent, Reason, Request, UserState
from core.use_cases import UseCases
from engines.base import NO_OPINION, REASON_ITEMS, Engine, NotApplicable, Scores, Scoring, item_weights, name, weigher
from engines.catalogue import Catalogue
from models.als import ALSModel, Fold
from models.young import YoungItems

KIND = "similar_to_your_items"
Freshness = Literal["fresh", "stale", "missing", "other_model"]


class Folded(NamedTuple):
    """A fold-in, and the items behind it in its order."""

    fold: Fold
    items: list[str]


class ALSEngine(Engine):
    """Answers from a user's history alone: a user whom training never saw is served like any other.

    An item that came after training is scored by its factors in `young`. They never enter a user's vector, so that it stays a
    function of the history and the model.
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
        young: YoungItems | None = None,
    ) -> None:
        """`previous`: an engine of the same model, over a catalogue that `catalogue` may extend: then only the new rows are looked at.

        `made_with` (engines.fold.made_with): what a stored vector must be made with to be used; empty, none is. `young`: of the same.
        """
        self.model, self.use_cases, self.made_with = model, use_cases, made_with
        self.young = young or YoungItems.none()
        grown = previous is not None and previous.model is model and catalogue.extends(previous.catalogue)
        self.catalogue = catalogue if grown else catalogue.with_bare(model.item_ids.ids)
        held: NDArray[np.int64] = previous._trained if grown and previous is not None else np.zeros(0, dtype=np.int64)
        self._trained: NDArray[np.int64] = np.concatenate([held, model.item_ids.rows(self.catalogue.ids[len(held) :])])
        self._place: NDArray[np.int64] = self._trained.copy()
        live = self.catalogue.rows
        for row, item_id in enumerate(self.young.ids.ids, len(model.item_ids)):
            if (at := live.get(item_id)) is not None and self._trained[at] < 0:
                self._place[at] = row
        self._place[self._place < 0] = len(model.item_ids) + len(self.young)  # the place past the end is NO_OPINION

    def score(self, state: UserState, request: Request) -> ALSScoring:
        """Raises NotApplicable when no item of the history has factors."""
        weights = weigher(self.use_cases, request)
        stored = self._stored(state, weights)
        if stored is not None:
            return ALSScoring(self, stored, state.history, weights)
        folded = self.fold(state.history, weights)
        return ALSScoring(self, folded.fold.vector, state.history, weights, folded)

    def similar(self, item_id: str) -> Scoring:
        """Cosine of item factors. Raises NotApplicable for an item without factors."""
        row, young = self.model.item_ids.row(item_id), self.young.ids.row(item_id)
        if row < 0 and young < 0:
            raise NotApplicable(f"{item_id} is not in the ALS model")
        factors = self.model.item_factors[row] if row >= 0 else self.young.factors[young]
        text = f"chosen by the same users as {name(self.catalogue, item_id)}"
        return SimilarScoring(self._by_row(self.model.cosines(factors), _cosines(self.young.factors, factors)), text, item_id)

    def freshness(self, state: UserState) -> Freshness:
        """Whether the vector that came with `state` is the fold-in of just its events by this model."""
        vector = state.als
        if vector is None or len(vector.vector) != 4 * self.model.factors:
            return "missing"
        if vector.made_with != self.made_with:
            return "other_model"
        return "fresh" if vector.as_of == state.events else "stale"

    def fold(self, history: Sequence[HistoryEvent], weights: UseCases) -> Folded:
        """Fold a history in on the spot. Raises NotApplicable when no item of it has factors."""
        mine = item_weights(history, weights)
        items = list(mine)
        rows, values = self.model.item_ids.rows(items), np.fromiter(mine.values(), dtype=np.float32, count=len(mine))
        known = rows >= 0
        if not known.all():
            rows, values = rows[known], values[known]
            items = [item_id for item_id, there in zip(items, known.tolist(), strict=True) if there]
        if not items:
            raise NotApplicable("the user has no history" if not history else "no item of the user's history is in the ALS model")
        return Folded(self.model.fold(rows, values, checked=True), items)

    def scores(self, vector: Scores) -> Scores:
        """Scores (n_rows,) of a user vector (f,), by catalogue row."""
        return self._by_row(self.model.scores(vector), self.young.factors @ vector if self.young else None)

    def factors(self, rows: Sequence[int]) -> Scores:
        """Item factors (n, f) of catalogue rows that have some."""
        places, trained = self._place[list(rows)], len(self.model.item_ids)
        if not self.young:
            return self.model.item_factors[places]
        found = np.empty((len(places), self.model.factors), dtype=np.float32)
        young = places >= trained
        found[~young], found[young] = self.model.item_factors[places[~young]], self.young.factors[places[young] - trained]
        return found

    def _stored(self, state: UserState, weights: UseCases) -> Scores | None:
        """The stored vector (f,) if it is what a fold-in would give, by weights that weigh this user's events as the defaults do."""
        if self.freshness(state) != "fresh" or state.als is None:
            return None
        mine, usual = weights.event_types, self.use_cases.event_types
        if mine is not usual and any(mine.get(kind, 0.0) != usual.get(kind, 0.0) for kind in state.counts):
            return None
        vector = np.frombuffer(state.als.vector, dtype="<f4")
        return vector if vector.any() and np.isfinite(vector).all() else None  # zeros: nothing to go by, and the fold-in says why

    def _by_row(self, trained: Scores, young: Scores | None) -> Scores:
        """(n_items of the model,) and (n_young,) to (n_rows of the catalogue,)."""
        parts = [trained, _NOTHING] if young is None else [trained, young, _NOTHING]
        scores: Scores = np.concatenate(parts).take(self._place, mode="clip")  # every row is within: "clip" only spares the check
        return scores


_NOTHING: Scores = np.array([NO_OPINION], dtype=np.float32)


def _cosines(factors: Scores, other: Scores) -> Scores | None:
    """Cosine (n,) of each row of `factors` (n, f) with `other` (f,); 0 where either is all zeros, None where there are no rows."""
    if not len(factors):
        return None
    sizes = np.linalg.norm(factors, axis=1) * np.linalg.norm(other)
    cosines: Scores = np.divide(factors @ other, sizes, out=np.zeros(len(factors), dtype=np.float32), where=sizes > 0)
    return cosines


class ALSScoring(Scoring):
    """Scores by a vector; the history is folded in for its reasons, if it was not for the vector."""

    def __init__(
        self, engine: ALSEngine, vector: Scores, history: Sequence[HistoryEvent], weights: UseCases, folded: Folded | None = None
    ) -> None:
        self.scores = engine.scores(vector)
        self._engine, self._history, self._weights = engine, history, weights
        if folded is not None:
            self._folded = folded

    @cached_property
    def _folded(self) -> Folded:
        return self._engine.fold(self._history, self._weights)

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The items of the history that carried each score most."""
        if not rows:
            return []
        fold, items = self._folded
        shares = fold.explain(self._engine.factors(rows))
        best = (-shares).argsort(axis=1, kind="stable")[:, :REASON_ITEMS]
        largest = shares[np.arange(len(rows))[:, None], best].tolist()
        orders = best.tolist()
        names = {at: name(self._engine.catalogue, items[at]) for at in set(chain.from_iterable(orders))}
        return [[_reason(share, order, items, names)] for share, order in zip(largest, orders, strict=True)]

    def contributions(self, row: int) -> list[Reason]:
        """One reason an item of the history; together they are the score (Hu, Koren and Volinsky, section 5)."""
        if self.scores[row] == NO_OPINION:
            return []
        fold, items = self._folded
        share = fold.explain(self._engine.factors([row]))[0]
        return [
            Reason(
                kind=KIND,
                text=f"your events with {name(self._engine.catalogue, items[at])}",
                items=[items[at]],
                contribution=float(share[at]),
            )
            for at in np.argsort(-share, kind="stable").tolist()
        ]


def _reason(shares: list[float], order: list[int], items: list[str], names: dict[int, str]) -> Reason:
    """`shares`: the largest ones, largest first, of the items `order`."""
    if shares[-1] <= 0:  # an item that lowers the score is no reason, unless all do
        used = sum(share > 0 for share in shares) or 1
        shares, order = shares[:used], order[:used]
    return Reason(
        kind=KIND,
        text="similar to " + ", ".join(map(names.__getitem__, order)),
        items=list(map(items.__getitem__, order)),
        contribution=sum(shares),
    )


class SimilarScoring(Scoring):
    """Likeness to one item, all for one reason."""

    def __init__(self, scores: Scores, text: str, item_id: str) -> None:
        self.scores = scores
        self._reason = Reason(kind="similar_item", text=text, items=[item_id])

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The one reason, for each row."""
        return [[self._reason] for _ in rows]
