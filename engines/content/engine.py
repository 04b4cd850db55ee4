"""The content-based engine: scores items by similarity to the user's interests and history.

It compares a profile of interests and history with the TF-IDF vector of every item.

Similarity alone finds items of the right kind, not good ones, and serves new users worse than
popularity does. So a prior (engines/blending/prior.py) has a share of the score of each matching
item: (1 - share) x similarity / highest + share x prior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np

from core.types import HistoryEvent, Item, Request, UserState
from core.use_cases import UseCases
from engines.als import SimilarScoring
from engines.base import (
    NO_OPINION,
    Engine,
    NotApplicable,
    Scores,
    Scoring,
    item_weights,
    name,
    weigher,
)
from engines.blending.prior import Prior
from engines.cache import LruCache
from engines.catalogue import Catalogue
from engines.content.scoring import ContentScoring, DescribedItems, Profile
from engines.content.vectors import ItemVectors, Sparse
from engines.popular import PopularEngine
from models.content import ContentModel

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


_NO_INTERESTS = Sparse(np.zeros(0, dtype=np.float32))


class ContentEngine(Engine):
    """Scores without the behaviour of other users.

    New users are scored by their declared interests, new items by their catalogue entry.
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
        self._interests: LruCache[Sparse] = (
            LruCache(CACHED_PROFILES) if previous is None else previous._interests
        )
        self.vectors: ItemVectors
        if previous is not None and catalogue.extends(previous.catalogue):
            rows = len(previous.catalogue.ids)
            self.vectors = previous.vectors.with_items(catalogue.items[rows:])
        else:
            self.vectors = ItemVectors.of(
                model, catalogue.items, {item.item_id: item for item in trained}
            )

    def score(self, state: UserState, request: Request) -> ContentScoring:
        """Scores by similarity and prior.

        Raises NotApplicable: neither history nor interests hold a term of the model.
        """
        history = self._history(state.history, weigher(self.use_cases, request))
        touched = self.vectors.entries(list(history))
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
        scores, prior_scores = self._scores(profile), None
        if (
            self.prior is not None
            and (highest := float(scores.max(initial=0.0, where=self.catalogue.alive))) > 0
        ):
            scale = np.float32((1 - self.prior.share) / highest)
            prior_scores = self.prior.score(state, request)
            # contributions then add up to the score
            profile, interest = profile * scale, interest * scale
            scores = scores * scale + prior_scores.parts
        items = DescribedItems(self.catalogue, self.vectors, self.model.terms)
        return ContentScoring(
            scores, items, Profile(profile, interest, history, touched), prior_scores
        )

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
        if row is None or not self.vectors.known[row]:
            raise NotApplicable(
                f"the catalogue says nothing about {item_id} that the content model knows"
            )
        text = f"says much the same as {name(self.catalogue, item_id)}"
        return SimilarScoring(self._scores(self.vectors.dense(row)), text, item_id)

    def _scores(self, profile: Scores) -> Scores:
        scores = self.vectors.products(profile)
        return np.where(scores > 0, scores, np.float32(NO_OPINION))

    def _history(self, history: Sequence[HistoryEvent], weights: UseCases) -> dict[int, float]:
        """Catalogue row -> weight, decayed by age, of the history's items that have a vector."""
        if not history:
            return {}
        now = max(event.timestamp for event in history)
        latest: dict[str, int] = {}
        for event in history:
            latest[event.item_id] = max(latest.get(event.item_id, event.timestamp), event.timestamp)
        rows, known = self.catalogue.rows, self.vectors.known
        return {
            row: weight * 0.5 ** ((now - latest[item_id]) / RECENCY_HALF_LIFE_S)
            for item_id, weight in item_weights(history, weights).items()
            if (row := rows.get(item_id, -1)) >= 0 and known[row]
        }

    def _declared(self, state: UserState) -> Sparse:
        interests = tuple(state.profile.interests) if state.profile else ()
        return (
            self._interests.get(
                interests, lambda: Sparse(self.model.profile_from_interests(interests))
            )
            if interests
            else _NO_INTERESTS
        )


def _nothing(state: UserState) -> str:
    if not state.history and not (state.profile and state.profile.interests):
        return "the user has no history and no declared interests"
    return (
        "the content model knows no term of the user's interests, nor of the items in the history"
    )
