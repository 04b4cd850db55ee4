"""Answers requests: the one path of the API, the offline evaluation and the command line.

engines/builder.py builds recommenders; engines/explain.py explains why an item is in an answer or
not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import structlog

from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Fallback, Recommendation, Recommendations, Request, ScoredItem, UserState
from engines import router
from engines.als import ALSEngine, Freshness
from engines.base import Engine, NotApplicable, Scoring, eligible
from engines.catalogue import Catalogue, Mask
from engines.popular import Windows
from engines.selection.explore import NewItems
from engines.selection.rerank import Reranker
from models.als.new_items import NewItemFactors
from models.bundle import Bundle
from models.popular import Popularity

SIMILAR_CHAIN = ("als", "two_tower", "content_based")
"""Engines that compare items, best-informed first."""

_log = structlog.get_logger("engines")


@dataclass(frozen=True, kw_only=True, eq=False)
class Recommender:
    """Answers from one bundle, one catalogue and one popularity. Immutable: replace it as a whole.

    `engines`: by name; `absent`: why others are not there. `made_with`: what a stored ALS vector
    must be made with to be used here; `new_items`: factors of items that came after the bundle.
    """

    bundle: Bundle
    catalogue: Catalogue
    popularity: Popularity
    windows: Windows
    settings: Settings
    made_with: str
    new_items: NewItemFactors
    engines: Mapping[str, Engine]
    absent: Mapping[str, str]

    @cached_property
    def thresholds(self) -> router.Thresholds:
        """The router's thresholds for this bundle, and why they apply."""
        return router.thresholds(self.settings, self.bundle.router)

    @cached_property
    def _routing(self) -> str:
        return self.thresholds.explained

    @cached_property
    def _explorable(self) -> NewItems:
        return NewItems(self.catalogue, self.settings.new_item_days, self.new_items.ids.ids)

    def recommend(self, state: UserState, request: Request) -> Recommendations:
        """An answer of `request.limit` items, fewer only when fewer are eligible.

        The routed engine (or `request.engine`) answers; what it cannot fill goes down the chain,
        each step labelled in `fallbacks`. Raises ConfigurationError for an engine that does not
        exist.
        """
        first = self._first(state, request)
        chain = router.CHAIN[router.CHAIN.index(first) :]
        allowed = eligible(self.catalogue, state, request)
        diversity = self.settings.diversity if request.diversity is None else request.diversity
        explore = self.settings.explore if request.explore is None else request.explore
        unused = allowed.copy() if explore > 0 else allowed
        reranker = Reranker(self.engines, diversity) if diversity > 0 else None

        def ask(engine: Engine) -> Scoring:
            scoring = engine.score(state, request)
            return scoring if reranker is None else reranker.over(scoring)

        answer = self._descend(state, chain, ask, allowed, request)
        if explore > 0:
            lines = self._explorable.insert(
                answer.recommendations,
                explore,
                state.user_id,
                request,
                unused,
                lambda item_id: metadata(self.catalogue, item_id),
            )
            answer = msgspec.structs.replace(answer, recommendations=lines)
        _log.debug(
            "recommended",
            user_id=state.user_id,
            interactions=state.events,
            routed=first,
            engine=answer.method_used,
            why="requested" if request.engine else self._routing,
            fallbacks=answer.fallbacks,
            items=len(answer.recommendations),
        )
        return answer

    def similar(self, item_id: str, request: Request) -> Recommendations:
        """Items similar to `item_id`: by ALS factors, then Two-Tower vectors, then content.

        Each line's `method` names the engine. The answer's `user_id` is empty; it has causes and no
        lines for an item that none of the engines knows.
        """
        no_user = UserState(user_id="")
        allowed = eligible(self.catalogue, no_user, request)
        allowed[self.catalogue.rows_of([item_id])] = False
        return self._descend(
            no_user, SIMILAR_CHAIN, lambda engine: engine.similar(item_id), allowed, request
        )

    def vector_of(self, state: UserState) -> Freshness | None:
        """Whether the stored ALS vector in `state` can be used.

        None without ALS, and for a user without events.
        """
        engine = self.engines.get(ALSEngine.name)
        return engine.freshness(state) if isinstance(engine, ALSEngine) and state.events else None

    def unavailable(self, name: str) -> str | None:
        """Why there is no engine `name`, or None."""
        return self.absent.get(name)

    def _first(self, state: UserState, request: Request) -> str:
        if request.engine is None:
            return router.route(state.events, self.thresholds)
        if request.engine not in router.CHAIN:
            raise ConfigurationError(
                f"there is no engine {request.engine!r}; ask for one of {', '.join(router.CHAIN)}"
            )
        return request.engine

    def _descend(
        self,
        state: UserState,
        chain: Sequence[str],
        ask: Callable[[Engine], Scoring],
        allowed: Mask,
        request: Request,
    ) -> Recommendations:
        """Ask the engines of `chain` in turn until the answer is full; overwrites `allowed`."""
        limit = min(request.limit, int(np.count_nonzero(allowed)))
        items: list[ScoredItem] = []
        fallbacks: list[Fallback] = []
        for name in chain:
            picked, cause = self._ask(name, ask, allowed, limit - len(items), request.reasons)
            items += picked
            if cause is not None:
                fallbacks.append(Fallback(engine=name, cause=cause))
            if len(items) >= limit:
                break
            allowed[self.catalogue.rows_of(item.item_id for item in picked)] = False
        lines = [
            Recommendation(
                item_id=item.item_id,
                score=item.score,
                rank=rank,
                method=item.engine,
                reasons=item.reasons,
                metadata=metadata(self.catalogue, item.item_id),
            )
            for rank, item in enumerate(items, 1)
        ]
        return Recommendations(
            user_id=state.user_id,
            method_used=items[0].engine if items else chain[-1],
            fallbacks=fallbacks,
            interaction_count=state.events,
            model_version=self.bundle.version,
            as_of=state.events,
            recommendations=lines,
        )

    def _ask(
        self, name: str, ask: Callable[[Engine], Scoring], allowed: Mask, limit: int, reasons: bool
    ) -> tuple[list[ScoredItem], str | None]:
        """The items that engine `name` picks, and the cause if they are fewer than `limit`."""
        if cause := self.unavailable(name):
            return [], cause
        engine = self.engines[name]
        try:
            picked = engine.pick(ask(engine), allowed, limit, reasons)
        except NotApplicable as nothing:
            return [], str(nothing)
        except Exception as error:  # noqa: BLE001 - a broken engine must not take the answer down: logged, labelled, and the chain goes on
            _log.exception("engine_failed", engine=name, model_version=self.bundle.version)
            return [], f"failed with {type(error).__name__}; the log has the traceback"
        if len(picked) >= limit:
            return picked, None
        return picked, f"scored only {len(picked)} of the {limit} requested items"


def metadata(catalogue: Catalogue, item_id: str) -> dict[str, Any]:
    """What the catalogue says about an item; empty for an item without an entry."""
    item = catalogue.get(item_id)
    if item is None:
        return {}
    return {
        "title": item.title,
        "item_type": item.item_type,
        "categories": item.categories,
        "attributes": item.attributes,
    }
