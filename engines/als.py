"""ALS: fold the user's history in, score every item, and say which items of the history carried the score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.types import Reason, Request, UserState
from core.use_cases import UseCases
from engines.base import NO_OPINION, REASON_ITEMS, Engine, NotApplicable, Scores, Scoring, item_weights, name, weigher
from engines.catalogue import Catalogue
from models.als import ALSModel, Fold

KIND = "similar_to_your_items"


class ALSEngine(Engine):
    """Answers from a user's history alone: a user whom training never saw is served like any other."""

    name = "als"

    def __init__(self, model: ALSModel, catalogue: Catalogue, use_cases: UseCases, previous: ALSEngine | None = None) -> None:
        """`previous`: an engine of the same model, over a catalogue that `catalogue` may extend: then only the new rows are looked at."""
        self.model, self.use_cases = model, use_cases
        grown = previous is not None and previous.model is model and catalogue.extends(previous.catalogue)
        self.catalogue = catalogue if grown else catalogue.with_bare(model.item_ids.ids)
        held: NDArray[np.int64] = previous._source if grown and previous is not None else np.zeros(0, dtype=np.int64)
        new = model.item_ids.rows(self.catalogue.ids[len(held) :]).astype(np.int64)
        new[new < 0] = len(model.item_ids)  # the score past the end is NO_OPINION
        self._source: NDArray[np.int64] = np.concatenate([held, new])

    def score(self, state: UserState, request: Request) -> ALSScoring:
        """Raises NotApplicable when no item of the history has factors."""
        weights = item_weights(state.history, weigher(self.use_cases, request))
        rows = self.model.item_ids.rows(weights)
        known = rows >= 0
        if not known.any():
            raise NotApplicable("the user has no history" if not state.history else "no item of the user's history is in the ALS model")
        fold = self.model.fold(rows[known], np.array(list(weights.values()), dtype=np.float32)[known])
        history = [item_id for item_id, there in zip(weights, known.tolist(), strict=True) if there]
        return ALSScoring(self, self.by_row(self.model.scores(fold.vector)), fold, history)

    def similar(self, item_id: str) -> Scoring:
        """Cosine of item factors. Raises NotApplicable for an item without factors."""
        row = self.model.item_ids.row(item_id)
        if row < 0:
            raise NotApplicable(f"{item_id} is not in the ALS model")
        text = f"chosen by the same users as {name(self.catalogue, item_id)}"
        return SimilarScoring(self.by_row(self.model.cosines(row)), text, item_id)

    def by_row(self, model_scores: Scores) -> Scores:
        """(n_items of the model,) to (n_rows of the catalogue,)."""
        padded = np.empty(len(model_scores) + 1, dtype=np.float32)
        padded[:-1], padded[-1] = model_scores, NO_OPINION
        scores: Scores = padded.take(self._source, mode="clip")  # every row is within: "clip" only spares the check
        return scores

    def factors(self, rows: Sequence[int]) -> Scores:
        """Item factors (n, f) of catalogue rows that the model knows."""
        return self.model.item_factors[self._source[list(rows)]]


class ALSScoring(Scoring):
    """`history`: the items behind the fold-in, in its order."""

    def __init__(self, engine: ALSEngine, scores: Scores, fold: Fold, history: list[str]) -> None:
        self.scores, self._engine, self._fold, self._history = scores, engine, fold, history

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The items of the history that carried each score most."""
        if not rows:
            return []
        shares = self._fold.explain(self._engine.factors(rows))
        best = (-shares).argsort(axis=1, kind="stable")[:, :REASON_ITEMS]
        names = {at: name(self._engine.catalogue, self._history[at]) for at in set(best.ravel().tolist())}
        return [[self._reason(share, order, names)] for share, order in zip(shares.tolist(), best.tolist(), strict=True)]

    def contributions(self, row: int) -> list[Reason]:
        """One reason an item of the history; together they are the score (Hu, Koren and Volinsky, section 5)."""
        if self.scores[row] == NO_OPINION:
            return []
        share = self._fold.explain(self._engine.factors([row]))[0]
        return [
            Reason(
                kind=KIND,
                text=f"your events with {name(self._engine.catalogue, self._history[at])}",
                items=[self._history[at]],
                contribution=float(share[at]),
            )
            for at in np.argsort(-share, kind="stable").tolist()
        ]

    def _reason(self, share: list[float], order: list[int], names: dict[int, str]) -> Reason:
        used = [at for at in order if share[at] > 0] or order[:1]  # an item that lowers the score is no reason, unless all do
        return Reason(
            kind=KIND,
            text="similar to " + ", ".join([names[at] for at in used]),
            items=[self._history[at] for at in used],
            contribution=sum([share[at] for at in used]),
        )


class SimilarScoring(Scoring):
    """Likeness to one item, all for one reason."""

    def __init__(self, scores: Scores, text: str, item_id: str) -> None:
        self.scores = scores
        self._reason = Reason(kind="similar_item", text=text, items=[item_id])

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The one reason, for each row."""
        return [[self._reason] for _ in rows]
