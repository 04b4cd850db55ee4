"""The content-based engine: compares a profile of the user's interests and history with the TF-IDF
vector of every item.

Similarity alone finds items of the right kind, not good ones, and serves new users worse than
popularity does. So a prior (engines/blending/prior.py) has a share of the score of each matching
item: (1 - share) x similarity / highest + share x prior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from core.process.background import pause, with_pauses
from core.types import HistoryEvent, Item, Reason, Request, UserState
from core.use_cases import UseCases
from engines.als import SimilarScoring
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
from engines.blending.prior import Prior, PriorScores
from engines.cache import Bounded
from engines.catalogue import Catalogue
from engines.popular import PopularEngine
from models.content import ContentModel

INTERESTS_KIND, ITEMS_KIND = "matches_your_interests", "shares_with_your_items"

RECENCY_HALF_LIFE_S = 30 * 24 * 3600
"""Age of an event at which it weighs half, in seconds before the user's latest event.

No clock is read.
"""
INTERESTS_AS_EVENTS = 3.0
"""Declared interests weigh as much as a history of this many items: they lead for a new user and
fade as events arrive.
"""
CACHED_PROFILES = 4096
"""Vectors of declared interests in the cache: at most 2 KB each for a list of twenty."""


class ContentEngine(Engine):
    """Scores without other users: new users by their declared interests, new items by their
    catalogue entry.
    """

    name = "content_based"

    def __init__(
        self,
        model: ContentModel,
        catalogue: Catalogue,
        use_cases: UseCases,
        trained: Sequence[Item] = (),
        previous: ContentEngine | None = None,
        prior: Prior | None = None,
    ) -> None:
        """`trained`: the items that `model` was fitted on, whose vectors it holds; `previous`: an
        engine of the same model, whose vectors are reused. Only changed and new items are
        vectorised.

        `prior`: over the same catalogue; None: the score is the cosine alone.
        """
        self.model, self.catalogue, self.use_cases = model, catalogue, use_cases
        self.prior = prior
        if previous is not None and previous.model is not model:
            previous = None
        self._interests: Bounded[_Sparse] = (
            Bounded(CACHED_PROFILES) if previous is None else previous._interests
        )
        self.vectors: sp.csr_matrix
        if previous is not None and catalogue.extends(previous.catalogue):
            new = catalogue.items[previous.vectors.shape[0] :]
            self.vectors = (
                sp.vstack([previous.vectors, _vectors(model, new, {})], format="csr")
                if new
                else previous.vectors
            )
        else:
            self.vectors = _vectors(
                model, catalogue.items, {item.item_id: item for item in trained}
            )

    def score(self, state: UserState, request: Request) -> ContentScoring:
        """Scores by similarity and prior.

        Raises NotApplicable: neither history nor interests hold a term of the model.
        """
        history = self._history(state.history, weigher(self.use_cases, request))
        touched = self.entries(list(history))
        profile = np.zeros(len(self.model.terms), dtype=np.float32)
        np.add.at(
            profile,
            touched.columns,
            touched.values * np.array(list(history.values()), dtype=np.float32)[touched.owners],
        )
        length = float(np.linalg.norm(profile))
        declared = self._declared(state)
        if not length and not len(declared.columns):
            raise NotApplicable(_nothing(state))
        share = (
            len(history) / (len(history) + INTERESTS_AS_EVENTS)
            if length and len(declared.columns)
            else float(length > 0)
        )
        if length:
            profile *= share / length
        interest = np.zeros_like(profile)
        interest[declared.columns] = declared.values * np.float32(1 - share)
        profile += interest
        scores, expected = self._scores(profile), None
        if (
            self.prior is not None
            and (highest := float(scores.max(initial=0.0, where=self.catalogue.alive))) > 0
        ):
            scale, expected = (
                np.float32((1 - self.prior.share) / highest),
                self.prior.score(state, request),
            )
            # contributions then add up to the score
            profile, interest = profile * scale, interest * scale
            scores = scores * scale + expected.parts
        return ContentScoring(self, scores, profile, interest, history, touched, expected)

    def over(self, engines: Mapping[str, Engine]) -> ContentEngine:
        """The same with newer popularity."""
        popular = engines.get(PopularEngine.name)
        if self.prior is None or not isinstance(popular, PopularEngine):
            return self
        other = copy(self)
        other.prior = self.prior._replace(popular=popular)
        return other

    def similar(self, item_id: str) -> Scoring:
        """Cosine of the items' TF-IDF vectors.

        Raises NotApplicable for an item without a term of the model.
        """
        row = self.catalogue.rows.get(item_id)
        if row is None or self.vectors.indptr[row] == self.vectors.indptr[row + 1]:
            raise NotApplicable(
                f"the catalogue says nothing about {item_id} that the content model knows"
            )
        vector = np.asarray(self.vectors[[row]].todense(), dtype=np.float32).ravel()
        return SimilarScoring(
            self._scores(vector), f"says much the same as {name(self.catalogue, item_id)}", item_id
        )

    def entries(self, rows: Sequence[int]) -> Entries:
        """The entries of `rows` in the vectors. scipy's own row selection costs several times as
        much for a few rows.
        """
        if not rows:
            return Entries(
                np.zeros(0, dtype=np.int32),
                np.zeros(0, dtype=np.float32),
                np.zeros(0, dtype=np.int64),
            )
        indptr, indices, data = self.vectors.indptr, self.vectors.indices, self.vectors.data
        ends = [(int(indptr[row]), int(indptr[row + 1])) for row in rows]
        owners = np.repeat(np.arange(len(rows)), [end - start for start, end in ends])
        return Entries(
            np.concatenate([indices[a:b] for a, b in ends]),
            np.concatenate([data[a:b] for a, b in ends]),
            owners,
        )

    def _scores(self, profile: Scores) -> Scores:
        scores: Scores = self.vectors @ profile
        return np.where(scores > 0, scores, np.float32(NO_OPINION))

    def _history(self, history: Sequence[HistoryEvent], weights: UseCases) -> dict[int, float]:
        """Catalogue row -> weight, decayed by age, of the history's items that have a vector."""
        if not history:
            return {}
        now = max(event.timestamp for event in history)
        latest: dict[str, int] = {}
        for event in history:
            latest[event.item_id] = max(latest.get(event.item_id, event.timestamp), event.timestamp)
        rows, indptr = self.catalogue.rows, self.vectors.indptr
        return {
            row: weight * 0.5 ** ((now - latest[item_id]) / RECENCY_HALF_LIFE_S)
            for item_id, weight in item_weights(history, weights).items()
            if (row := rows.get(item_id, -1)) >= 0 and indptr[row] < indptr[row + 1]
        }

    def _declared(self, state: UserState) -> _Sparse:
        interests = tuple(state.profile.interests) if state.profile else ()
        return (
            self._interests.get(
                interests, lambda: _Sparse(self.model.profile_from_interests(interests))
            )
            if interests
            else _NONE
        )


class ContentScoring(Scoring):
    """Scores by a profile.

    `profile` (n_terms,) f32 is the sum of the history's part and `interest`, the declared part.
    `history`: row -> weight; `touched`: the entries of these rows; `expected`: the prior's part of
    the scores, if there is one.
    """

    def __init__(
        self,
        engine: ContentEngine,
        scores: Scores,
        profile: Scores,
        interest: Scores,
        history: dict[int, float],
        touched: Entries,
        expected: PriorScores | None,
    ) -> None:
        self.scores, self._engine, self._profile, self._interest = scores, engine, profile, interest
        self._history, self._touched, self._expected = history, touched, expected

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """For each row: the declared interests that it matches, the most similar item of the
        history, and the prior's reason.
        """
        if not rows:
            return []
        shown = self._engine.entries(rows)
        columns = np.unique(shown.columns)
        vectors = shown.dense(columns, len(rows))
        declared = vectors * self._interest[columns]
        lived = vectors * (self._profile[columns] - self._interest[columns])
        history = self._touched.dense(columns, len(self._history))
        found: list[list[Reason]] = [[] for _ in rows]
        for index in np.flatnonzero(declared.any(axis=1)).tolist():
            found[index].append(
                self._reason(
                    INTERESTS_KIND, "matches your interests", declared[index], columns, None
                )
            )
        if self._history:
            likeness = (vectors @ history.T) * np.array(
                list(self._history.values()), dtype=np.float32
            )
            touched = list(self._history)
            for index, nearest in enumerate(likeness.argmax(axis=1).tolist()):
                if likeness[index, nearest] > 0:
                    item_id = self._engine.catalogue.ids[touched[nearest]]
                    shared = np.where(history[nearest] > 0, lived[index], 0)
                    found[index].append(
                        self._reason(
                            ITEMS_KIND,
                            f"like {name(self._engine.catalogue, item_id)}",
                            shared,
                            columns,
                            item_id,
                        )
                    )
        for index, row in enumerate(rows):
            found[index] += self._general(row)
        return found

    def contributions(self, row: int) -> list[Reason]:
        """One reason for each term, with the items of the history that contain it, and the prior's.

        They add up to the score.
        """
        if self.scores[row] == NO_OPINION:
            return []
        weights = np.array(list(self._history.values()), dtype=np.float32)
        brought, ids = (
            self._touched.values * weights[self._touched.owners],
            [self._engine.catalogue.ids[at] for at in self._history],
        )

        def items(column: int) -> list[str]:
            at = np.flatnonzero(self._touched.columns == column)
            return [
                ids[owner]
                for owner in self._touched.owners[at[np.argsort(-brought[at], kind="stable")]][
                    :REASON_ITEMS
                ].tolist()
            ]

        entries = self._engine.entries([row])
        columns, parts = entries.columns, entries.values * self._profile[entries.columns]
        terms = self._engine.model.terms
        found = [
            Reason(
                kind=INTERESTS_KIND if self._interest[columns[at]] > 0 else ITEMS_KIND,
                text=f"matches {terms[columns[at]]}",
                items=items(columns[at]),
                attributes=[terms[columns[at]]],
                contribution=float(parts[at]),
            )
            for at in np.flatnonzero(parts > 0).tolist()
        ]
        return sorted(found + self._general(row), key=lambda reason: -(reason.contribution or 0.0))

    def _general(self, row: int) -> list[Reason]:
        return [] if self._expected is None else self._expected.reasons(row)

    def _reason(
        self, kind: str, text: str, parts: Scores, columns: NDArray[np.int32], item_id: str | None
    ) -> Reason:
        """`parts` (n_columns,): contribution of each term.

        The largest are named; their sum is the reason's contribution.
        """
        terms = self._engine.model.terms
        best = [
            at for at in np.argsort(-parts, kind="stable")[:REASON_ITEMS].tolist() if parts[at] > 0
        ]
        words = [terms[columns[at]] for at in best]
        return Reason(
            kind=kind,
            text=f"{text}: {', '.join(words)}",
            items=[] if item_id is None else [item_id],
            attributes=words,
            contribution=float(parts.sum()),
        )


class Entries(NamedTuple):
    """Entries of some rows of a sparse matrix.

    `owners`: for each entry, the index of its row among them.
    """

    columns: NDArray[np.int32]
    values: Scores
    owners: NDArray[np.int64]

    def dense(self, columns: NDArray[np.int32], rows: int) -> Scores:
        """The entries in `columns` (sorted, distinct) as a dense array (rows, n_columns) f32."""
        out = np.zeros((rows, len(columns)), dtype=np.float32)
        if len(columns):
            at = np.minimum(np.searchsorted(columns, self.columns), len(columns) - 1)
            there = columns[at] == self.columns
            out[self.owners[there], at[there]] = self.values[there]
        return out


class _Sparse:
    """The non-zero columns of a dense vector, and their values."""

    __slots__ = ("columns", "values")

    def __init__(self, dense: Scores) -> None:
        self.columns = np.flatnonzero(dense).astype(np.int32)
        self.values = dense[self.columns]


_NONE = _Sparse(np.zeros(0, dtype=np.float32))


def _vectors(
    model: ContentModel, items: Sequence[Item | None], trained: dict[str, Item]
) -> sp.csr_matrix:
    """Vectors (n, n_terms) f32 CSR: the model's own where the item did not change since training, a
    new one elsewhere, zeros for None.
    """
    described = np.array([item is not None for item in items], dtype=np.bool_)
    unchanged = [
        item.item_id if item is not None and trained.get(item.item_id) == item else ""
        for item in with_pauses(items)
    ]
    pause()
    sources = model.item_ids.rows(unchanged)
    pause()
    fresh = described & (sources < 0)
    sources[fresh] = len(model.item_ids) + np.arange(np.count_nonzero(fresh))
    new = model.vectors(
        [
            item
            for item, is_fresh in zip(items, fresh.tolist(), strict=True)
            if is_fresh and item is not None
        ]
    )
    empty = sp.csr_matrix((1, len(model.terms)), dtype=np.float32)
    stacked = sp.vstack([model.item_vectors, new, empty], format="csr", dtype=np.float32)
    sources[sources < 0] = stacked.shape[0] - 1
    return sp.csr_matrix(stacked[sources])


def _nothing(state: UserState) -> str:
    if not state.history and not (state.profile and state.profile.interests):
        return "the user has no history and no declared interests"
    return (
        "the content model knows no term of the user's interests, nor of the items in the history"
    )
