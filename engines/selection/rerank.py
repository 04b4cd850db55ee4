"""A list that is less of the same: maximal marginal relevance over an engine's best items (Carbonell and Goldstein, SIGIR 1998).

Each place goes to the candidate with the highest  (1 - diversity) * relevance - diversity * largest likeness to what is already chosen.
Relevance is the engine's score on a scale from 0 to 1 over the candidates; likeness is a cosine, below 0 as 0. The first place stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.types import Reason
from engines.als import ALSEngine
from engines.base import NO_OPINION, Engine, Scores, Scoring
from engines.catalogue import Mask
from engines.content import ContentEngine

CANDIDATES_A_PLACE = 5
"""Candidates for each place: enough for other kinds of items to be among them, few enough that all are good ones."""
LEAST_CANDIDATES, MOST_CANDIDATES = 50, 500
"""The likeness of 500 candidates to each other is a megabyte, made in some milliseconds."""


class Reranker:
    """Reorders one answer. Keeps what was chosen, so that an engine that fills the rest looks at the places before it too."""

    def __init__(self, engines: Mapping[str, Engine], diversity: float) -> None:
        """`diversity`: 0 to 1, above 0. Items are compared by content; where it says nothing, by ALS factors; else not at all."""
        self._engines, self._diversity = engines, np.float32(diversity)
        self._chosen: list[int] = []

    def over(self, scoring: Scoring) -> Scoring:
        """`scoring` with a diverse `top`."""
        return _Diverse(scoring, self)

    def choose(self, rows: Sequence[int], scores: Scores, limit: int) -> list[int]:
        """`limit` of the candidates `rows`, best first by `scores` (n,), in the order of their places."""
        if not rows:
            return []
        had = len(self._chosen)
        likeness = self._likeness([*self._chosen, *rows])[had:]
        nearest, among = likeness[:, :had].max(axis=1, initial=0), likeness[:, had:]
        span = scores[0] - scores[-1]
        relevance = (1 - self._diversity) * ((scores - scores[-1]) / span if span > 0 else np.ones(len(rows))).astype(np.float32)
        picked: list[int] = []
        for _ in range(min(limit, len(rows))):
            best = int(np.argmax(relevance - self._diversity * nearest)) if picked or had else 0
            picked.append(best)
            relevance[best] = NO_OPINION
            np.maximum(nearest, among[best], out=nearest)
        chosen = [rows[at] for at in picked]
        self._chosen += chosen
        return chosen

    def _likeness(self, rows: Sequence[int]) -> Scores:
        """Cosines (n, n) f32 of catalogue rows with each other; 0 with one that nothing is known of."""
        content, als = self._engines.get(ContentEngine.name), self._engines.get(ALSEngine.name)
        vectors = np.zeros((len(rows), 1), dtype=np.float32)
        if isinstance(content, ContentEngine):
            entries = content.entries(rows)
            vectors = entries.dense(np.unique(entries.columns), len(rows))
        if isinstance(als, ALSEngine) and not vectors.any():
            known = als.model.item_ids.rows([als.catalogue.ids[row] for row in rows])
            vectors = np.zeros((len(rows), als.model.factors), dtype=np.float32)
            vectors[known >= 0] = als.model.item_factors[known[known >= 0]]
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        likeness: Scores = vectors @ vectors.T
        return likeness


class _Diverse(Scoring):
    def __init__(self, scoring: Scoring, reranker: Reranker) -> None:
        self.scores, self._scoring, self._reranker = scoring.scores, scoring, reranker

    def top(self, eligible: Mask, limit: int) -> list[int]:
        candidates = self._scoring.top(eligible, max(limit, LEAST_CANDIDATES, min(CANDIDATES_A_PLACE * limit, MOST_CANDIDATES)))
        return self._reranker.choose(candidates, self.scores[candidates], limit)

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        return self._scoring.reasons(rows)
