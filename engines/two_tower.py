"""The Two-Tower engine: scores items by the dot product of user vector and item vector.

The user vector is computed from the latest events in order. A new item gets its vector from its
catalogue entry.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.types import HistoryEvent, Item, Reason, Request, UserState
from engines.als import SimilarScoring
from engines.base import NO_OPINION, REASON_ITEMS, Engine, NotApplicable, Scores, Scoring, name
from engines.cache import LruCache
from engines.catalogue import Catalogue
from models.two_tower import OLDER, TwoTowerModel

KIND, INTERESTS_KIND = "follows_your_recent_items", "matches_your_interests"

CACHED_PROFILES = 4096
"""Vectors of declared interests in the cache: 256 bytes each at 64 dimensions."""

History = list[tuple[HistoryEvent, int]]
"""Events, oldest first, each with the catalogue row of its item."""


class TwoTowerEngine(Engine):
    """Serves users unknown to training like all others.

    Items unknown to training have a vector by content.
    """

    name = "two_tower"

    def __init__(
        self, model: TwoTowerModel, catalogue: Catalogue, previous: TwoTowerEngine | None = None
    ) -> None:
        """`previous`: an engine of the same model; if `catalogue` extends its catalogue, only the
        new rows are computed.
        """
        self.model = model
        self._profiles: LruCache[Scores] = LruCache(CACHED_PROFILES)
        self._source: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        """(n_rows,): 0 for no vector, then the items of the model, then the rows of `_new_vectors`,
        which hold vectors by content alone.
        """
        self._new_vectors: Scores = np.zeros((0, model.dimension), dtype=np.float32)
        if previous is not None and previous.model is model:
            self._profiles = previous._profiles
            if catalogue.extends(previous.catalogue):
                self._source, self._new_vectors = previous._source, previous._new_vectors
        self.catalogue = catalogue if len(self._source) else catalogue.with_bare(model.item_ids.ids)
        self._add_rows(
            self.catalogue.ids[len(self._source) :], self.catalogue.items[len(self._source) :]
        )

    def score(self, state: UserState, request: Request) -> TwoTowerScoring:
        """Scores of every item.

        Raises NotApplicable: no item of the history has a vector, and the model knows no declared
        interest.
        """
        history, older = self._readable(state.history)
        interests = tuple(state.profile.interests) if state.profile else ()
        roles = {request.use_case.role} if request.use_case is not None else set()
        roles.update(state.profile.roles if state.profile else ())
        interested = bool(interests) and bool(self._profile(interests, ()).any())
        if not history and not interested:
            raise NotApplicable(_nothing(state))
        profile = self._profile(interests, tuple(sorted(roles))) + self.model.older_part(
            self.vectors(older)
        )
        vector = self.user_vector(history, profile)
        return TwoTowerScoring(self, vector, history, profile, interests if interested else ())

    def similar(self, item_id: str) -> Scoring:
        """Scores by the cosine of item vectors. Raises NotApplicable for an item without one."""
        row = self.catalogue.rows.get(item_id)
        if row is None or not self._source[row]:
            raise NotApplicable(
                f"{item_id} is not in the Two-Tower model, and the catalogue says nothing "
                f"about it that the model knows"
            )
        vector = self.vectors([row])[0]
        scores = self._by_row(self.model.cosines(vector), cosines(self._new_vectors, vector))
        return SimilarScoring(
            scores, f"follows the same items as {name(self.catalogue, item_id)}", item_id
        )

    def user_vector(self, history: History, profile: Scores) -> Scores:
        """Vector (d,) f32 of a user with these events, at most as many as the model reads."""
        return self.model.user_vector(
            self.vectors([row for _, row in history]),
            self.model.type_rows([event.event_type for event, _ in history]),
            np.array([event.timestamp for event, _ in history], dtype=np.float64),
            profile,
        )

    def scores(self, vector: Scores) -> Scores:
        """Scores (n_rows,) f32 of a user vector (d,), NO_OPINION for an item without a vector."""
        return self._by_row(self.model.scores(vector), self._new_vectors @ vector)

    def vectors(self, rows: Sequence[int]) -> Scores:
        """Vectors (n, d) f32 of catalogue rows that have one."""
        source = self._source[list(rows)] - 1
        trained = len(self.model.item_ids)
        vectors = np.empty((len(source), self.model.dimension), dtype=np.float32)
        is_new = source >= trained
        vectors[~is_new] = self.model.item_vectors[source[~is_new]]
        vectors[is_new] = self._new_vectors[source[is_new] - trained]
        return vectors

    def _by_row(self, trained: Scores, new: Scores) -> Scores:
        scores: Scores = np.concatenate([[np.float32(NO_OPINION)], trained, new]).take(
            self._source, mode="clip"
        )
        return scores

    def _add_rows(self, ids: Sequence[str], items: Sequence[Item | None]) -> None:
        """Extend `_source` and `_new_vectors` by the rows of `items`."""
        trained = len(self.model.item_ids)
        source = self.model.item_ids.rows(ids).astype(np.int64) + 1
        untrained = [
            index for index in np.flatnonzero(source == 0).tolist() if items[index] is not None
        ]
        vectors = self.model.content_vectors(
            [item for index in untrained if (item := items[index]) is not None]
        )
        has_content = vectors.any(axis=1)
        first = 1 + trained + len(self._new_vectors)
        source[np.array(untrained, dtype=np.int64)[has_content]] = first + np.arange(
            int(has_content.sum())
        )
        self._source = np.concatenate([self._source, source])
        self._new_vectors = np.concatenate([self._new_vectors, vectors[has_content]])

    def _readable(self, history: Sequence[HistoryEvent]) -> tuple[History, list[int]]:
        """The latest events whose items have vectors, in order of time; and the rows of older ones.

        Events without a time come first.
        """
        rows, source = self.catalogue.rows, self._source
        events = [
            (event, row)
            for event in history
            if (row := rows.get(event.item_id)) is not None and source[row]
        ]
        events.sort(key=lambda pair: pair[0].timestamp)
        older = events[: -self.model.history]
        return events[-self.model.history :], [row for _, row in older[-OLDER:]]

    def _profile(self, interests: tuple[str, ...], roles: tuple[str, ...]) -> Scores:
        return self._profiles.get(
            (interests, roles), lambda: self.model.profile_vector(interests, roles)
        )


class TwoTowerScoring(Scoring):
    """Scores by a user vector.

    `history`: what the user tower read; `interests`: the declared ones that the model knows.
    """

    def __init__(
        self,
        engine: TwoTowerEngine,
        vector: Scores,
        history: History,
        profile: Scores,
        interests: tuple[str, ...],
    ) -> None:
        self.scores = engine.scores(vector)
        self._engine, self._history, self._profile, self._interests = (
            engine,
            history,
            profile,
            interests,
        )

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The recent items most similar to each row, by cosine.

        Without a history, the interests.
        """
        if not rows:
            return []
        recent = list(dict.fromkeys(row for _, row in reversed(self._history)))
        if not recent:
            text = "matches your interests: " + ", ".join(self._interests[:REASON_ITEMS])
            return [
                [Reason(kind=INTERESTS_KIND, text=text, attributes=list(self._interests))]
                for _ in rows
            ]
        similarity = (
            _normalise(self._engine.vectors(rows)) @ _normalise(self._engine.vectors(recent)).T
        )
        best = (-similarity).argsort(axis=1, kind="stable")[:, :REASON_ITEMS]
        return [
            [
                self._nearest(
                    [recent[index] for index in order if row_similarity[index] > 0]
                    or [recent[order[0]]]
                )
            ]
            for row_similarity, order in zip(similarity, best.tolist(), strict=True)
        ]

    def contributions(self, row: int) -> list[Reason]:
        """How much lower the score is without each item of the history, largest first.

        The numbers do not add up to the score.
        """
        if self.scores[row] == NO_OPINION:
            return []
        engine, target = self._engine, self._engine.vectors([row])[0]
        reasons = []
        for item in dict.fromkeys(row for _, row in self._history):
            without = engine.user_vector(
                [pair for pair in self._history if pair[1] != item], self._profile
            )
            item_id = engine.catalogue.ids[item]
            text = f"your events with {name(engine.catalogue, item_id)}"
            difference = float(self.scores[row]) - float(target @ without)
            reasons.append(Reason(kind=KIND, text=text, items=[item_id], contribution=difference))
        if self._profile.any():
            without = engine.user_vector(self._history, np.zeros_like(self._profile))
            difference = float(self.scores[row]) - float(target @ without)
            text = "what you declared" if self._interests else "what you did before"
            reasons.append(
                Reason(
                    kind=INTERESTS_KIND,
                    text=text,
                    attributes=list(self._interests),
                    contribution=difference,
                )
            )
        return sorted(reasons, key=lambda reason: -(reason.contribution or 0.0))

    def _nearest(self, rows: list[int]) -> Reason:
        catalogue = self._engine.catalogue
        ids = [catalogue.ids[row] for row in rows]
        return Reason(
            kind=KIND,
            text="follows from " + ", ".join(name(catalogue, item_id) for item_id in ids),
            items=ids,
        )


def cosines(vectors: Scores, vector: Scores) -> Scores:
    """Cosines (n,) f32 of `vectors` (n, d) with `vector` (d,)."""
    products: Scores = _normalise(vectors) @ _normalise(vector[None])[0]
    return products


def _normalise(vectors: Scores) -> Scores:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    normalised: Scores = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return normalised


def _nothing(state: UserState) -> str:
    if not state.history and not (state.profile and state.profile.interests):
        return "the user has no history and no declared interests"
    return (
        "the Two-Tower model knows no item of the user's history and no term of the user's "
        "interests"
    )
