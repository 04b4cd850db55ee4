"""ALS: fold the user's history in, score every item, and say which items of the history carried the score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.types import Reason, Request, UserState
from core.use_cases import UseCases
from engines.base import NO_OPINION, REASON_ITEMS, Engine, NotApplicable, Scores, Scoring, align, item_weights, names, weigher
from engines.catalogue import Catalogue
from models.als import ALSModel, Fold

KIND = "similar_to_your_items"


class ALSEngine(Engine):
    """Answers from a user's history alone: a user whom training never saw is served like any other."""

    name = "als"

    def __init__(self, model: ALSModel, catalogue: Catalogue, use_cases: UseCases) -> None:
        self.model, self.use_cases = model, use_cases
        self.catalogue = catalogue.with_bare(model.item_ids.ids)
        rows = align(self.catalogue, model.item_ids.ids)
        self._whole = bool((rows >= 0).all())
        self._model_rows = np.flatnonzero(rows >= 0).astype(np.int32)
        self._rows = rows[self._model_rows]
        self._model_row_of = np.full(len(self.catalogue.ids), -1, dtype=np.int32)
        self._model_row_of[self._rows] = self._model_rows

    def score(self, state: UserState, request: Request) -> ALSScoring:
        """Raises NotApplicable when no item of the history has factors."""
        weights = item_weights(state.history, weigher(self.use_cases, request))
        row_of = self.model.item_ids.row
        known = [(row, item_id, weight) for item_id, weight in weights.items() if (row := row_of(item_id)) >= 0]
        if not known:
            raise NotApplicable("the user has no history" if not state.history else "no item of the user's history is in the ALS model")
        rows, history, confidences = zip(*known, strict=True)
        fold = self.model.fold(np.array(rows, dtype=np.int32), np.array(confidences, dtype=np.float32))
        return ALSScoring(self, self.by_row(self.model.scores(fold.vector)), fold, history)

    def similar(self, item_id: str) -> Scoring:
        """Cosine of item factors. Raises NotApplicable for an item without factors."""
        row = self.model.item_ids.row(item_id)
        if row < 0:
            raise NotApplicable(f"{item_id} is not in the ALS model")
        text = f"chosen by the same users as {names(self.catalogue, [item_id])}"
        return SimilarScoring(self.by_row(self.model.cosines(row)), text, item_id)

    def by_row(self, model_scores: Scores) -> Scores:
        """(n_items of the model,) to (n_rows of the catalogue,)."""
        scores = np.full(len(self.catalogue.ids), NO_OPINION, dtype=np.float32)
        scores[self._rows] = model_scores if self._whole else model_scores[self._model_rows]
        return scores

    def factors(self, rows: Sequence[int]) -> Scores:
        """Item factors (n, f) of catalogue rows that the model knows."""
        return self.model.item_factors[self._model_row_of[list(rows)]]


class ALSScoring(Scoring):
    """`history`: the items behind the fold-in, in its order."""

    def __init__(self, engine: ALSEngine, scores: Scores, fold: Fold, history: tuple[str, ...]) -> None:
        self.scores, self._engine, self._fold, self._history = scores, engine, fold, history

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The items of the history that carried each score most."""
        if not rows:
            return []
        shares = self._fold.explain(self._engine.factors(rows))
        best = np.argsort(-shares, axis=1, kind="stable")[:, :REASON_ITEMS].tolist()
        return [[self._reason(share, order)] for share, order in zip(shares.tolist(), best, strict=True)]

    def contributions(self, row: int) -> list[Reason]:
        """One reason an item of the history; together they are the score (Hu, Koren and Volinsky, section 5)."""
        if self.scores[row] == NO_OPINION:
            return []
        share = self._fold.explain(self._engine.factors([row]))[0]
        return [Reason(kind=KIND, text=f"your events with {names(self._engine.catalogue, [self._history[at]])}",
                       items=[self._history[at]], contribution=float(share[at])) for at in np.argsort(-share, kind="stable").tolist()]

    def _reason(self, share: list[float], order: list[int]) -> Reason:
        used = [at for at in order if share[at] > 0] or order[:1]
        items = [self._history[at] for at in used]
        return Reason(kind=KIND, text=f"similar to {names(self._engine.catalogue, items)}", items=items,
                      contribution=sum(share[at] for at in used))


class SimilarScoring(Scoring):
    """Likeness to one item, all for one reason."""

    def __init__(self, scores: Scores, text: str, item_id: str) -> None:
        self.scores = scores
        self._reason = Reason(kind="similar_item", text=text, items=[item_id])

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The one reason, for each row."""
        return [[self._reason] for _ in rows]
