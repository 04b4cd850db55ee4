"""Diversity: reorders an engine's best items by maximal marginal relevance.

The method is that of Carbonell and Goldstein (SIGIR 1998).

Each place goes to the candidate with the highest  (1 - diversity) * relevance - diversity *
similarity,  where relevance is the engine's score on a scale from 0 to 1 over the candidates, and
similarity the largest cosine (at least 0) with an item that is already in the list. The first place
does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.types import Reason
from engines.als import ALSEngine
from engines.base import NO_OPINION, Engine, Scores, Scoring
from engines.catalogue import Mask
from engines.content.engine import ContentEngine

CANDIDATES_A_PLACE = 5
"""Candidates for each place: enough to contain other kinds of items, few enough that all of them
score well.
"""
LEAST_CANDIDATES, MOST_CANDIDATES = 50, 500
"""Bounds of the number of candidates: the similarities of 500 candidates take a megabyte and some
milliseconds.
"""


class Reranker:
    """Reorders one answer.

    Keeps the items selected so far, so that an engine that fills the remaining places considers
    them too.
    """

    def __init__(self, engines: Mapping[str, Engine], diversity: float) -> None:
        """`diversity`: above 0, at most 1.

        Items are compared by content; where it has no vectors, by ALS factors; else not at all.
        """
        self._engines, self._diversity = engines, np.float32(diversity)
        self._selected: list[int] = []

    def over(self, scoring: Scoring) -> Scoring:
        """`scoring` with a diverse `top`."""
        return _DiverseScoring(scoring, self)

    def select(self, rows: Sequence[int], scores: Scores, limit: int) -> list[int]:
        """Select `limit` of the candidates `rows`, which are ordered by `scores` (n,), best first.

        Returns them in list order.
        """
        if not rows:
            return []
        before = len(self._selected)
        similarity = self._similarity([*self._selected, *rows])[before:]
        nearest, among = similarity[:, :before].max(axis=1, initial=0), similarity[:, before:]
        span = scores[0] - scores[-1]
        relevance = (1 - self._diversity) * (
            (scores - scores[-1]) / span if span > 0 else np.ones(len(rows))
        ).astype(np.float32)
        indices: list[int] = []
        for _ in range(min(limit, len(rows))):
            best = int(np.argmax(relevance - self._diversity * nearest)) if indices or before else 0
            indices.append(best)
            relevance[best] = NO_OPINION
            np.maximum(nearest, among[best], out=nearest)
        selected = [rows[index] for index in indices]
        self._selected += selected
        return selected

    def _similarity(self, rows: Sequence[int]) -> Scores:
        """Cosines (n, n) f32 of catalogue rows with each other; 0 for a row without a vector."""
        content, als = self._engines.get(ContentEngine.name), self._engines.get(ALSEngine.name)
        vectors = np.zeros((len(rows), 1), dtype=np.float32)
        if isinstance(content, ContentEngine):
            entries = content.vectors.entries(rows)
            vectors = entries.dense(np.unique(entries.columns), len(rows))
        if isinstance(als, ALSEngine) and not vectors.any():
            model_rows = als.model.item_ids.rows([als.catalogue.ids[row] for row in rows])
            vectors = np.zeros((len(rows), als.model.factors), dtype=np.float32)
            vectors[model_rows >= 0] = als.model.item_factors[model_rows[model_rows >= 0]]
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        cosines: Scores = vectors @ vectors.T
        return cosines


class _DiverseScoring(Scoring):
    def __init__(self, scoring: Scoring, reranker: Reranker) -> None:
        self.scores, self._scoring, self._reranker = scoring.scores, scoring, reranker

    def top(self, eligible: Mask, limit: int) -> list[int]:
        candidates = self._scoring.top(
            eligible, max(limit, LEAST_CANDIDATES, min(CANDIDATES_A_PLACE * limit, MOST_CANDIDATES))
        )
        return self._reranker.select(candidates, self.scores[candidates], limit)

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        return self._scoring.reasons(rows)
