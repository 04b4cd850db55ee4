"""The one path from a user's state to an answer, for the API, the offline evaluation and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import structlog

from core.background import rest
from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Fallback, Recommendation, Recommendations, Request, ScoredItem, UserState
from engines import router
from engines.als import ALSEngine, Freshness
from engines.base import Engine, NotApplicable, Scoring, eligible
from engines.blending.ensemble import EnsembleEngine
from engines.blending.prior import Prior
from engines.catalogue import Catalogue, Mask
from engines.content import ContentEngine
from engines.explain import Explanation, explain
from engines.fold import made_with
from engines.popular import PopularEngine, Windows
from engines.selection.explore import NewItems
from engines.selection.rerank import Reranker
from engines.two_tower import TwoTowerEngine
from models.bundle import Bundle
from models.ensemble import Blend
from models.popular import Popularity
from models.young import YoungItems


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What engines are built from. `engines`: those built before it; `absent`: why others are not there;
    `made_with`, `young`: what stored vectors must be made with, and items that came after training; `previous`: the engine of the same
    name that is being replaced."""

    bundle: Bundle
    catalogue: Catalogue
    popularity: Popularity
    windows: Windows
    settings: Settings
    engines: Mapping[str, Engine]
    absent: Mapping[str, str]
    made_with: str
    young: YoungItems
    previous: Engine | None = None

    def lacking(self, part: str) -> NotApplicable:
        """Why there is no engine without the bundle's `part`."""
        return NotApplicable(self.bundle.missing.get(part, f"the bundle has no part {part!r}"))


def _als(parts: Parts) -> Engine:
    model, previous = parts.bundle.als, parts.previous if isinstance(parts.previous, ALSEngine) else None
    if model is None:
        raise parts.lacking("als")
    return ALSEngine(model, parts.catalogue, parts.settings.use_cases, previous, made_with=parts.made_with, young=parts.young)


def _two_tower(parts: Parts) -> Engine:
    model, previous = parts.bundle.two_tower, parts.previous if isinstance(parts.previous, TwoTowerEngine) else None
    if model is None:
        raise parts.lacking("two_tower")
    return TwoTowerEngine(model, parts.catalogue, previous)


def _popular(parts: Parts) -> Engine:
    previous = parts.previous if isinstance(parts.previous, PopularEngine) else None
    return PopularEngine(parts.popularity, parts.catalogue, parts.windows, previous)


def _content(parts: Parts) -> Engine:
    model, previous = parts.bundle.content, parts.previous if isinstance(parts.previous, ContentEngine) else None
    if model is None:
        raise parts.lacking("content")
    popular, share = parts.engines.get(PopularEngine.name), parts.settings.content_popularity_share
    prior = None
    if share and isinstance(popular, PopularEngine):
        prior = Prior(popular, NewItems(parts.catalogue, parts.settings.new_item_days), share)
    return ContentEngine(model, parts.catalogue, parts.settings.use_cases, parts.bundle.catalogue, previous, prior)


def blend_of(settings: Settings) -> Blend:
    """The blend that the settings say."""
    weights = {"als": settings.ensemble_als_weight, "two_tower": settings.ensemble_two_tower_weight}
    return Blend(weights=weights, fusion=settings.ensemble_fusion)


def _ensemble(parts: Parts) -> Engine:
    chosen, settings = parts.bundle.ensemble, parts.settings
    if chosen is None or not settings.model_fields_set.isdisjoint(BLEND_SETTINGS):
        chosen = blend_of(settings)
    for name in chosen.shares:
        if name not in parts.engines:
            raise NotApplicable(f"{name}: {parts.absent.get(name, 'there is no such engine')}")
    return EnsembleEngine(parts.engines, chosen)


BUILDERS: Mapping[str, Callable[[Parts], Engine]] = {
    "als": _als,
    "two_tower": _two_tower,
    "popular": _popular,
    "content_based": _content,
    "ensemble": _ensemble,
}
"""Engine -> how it is built; raises NotApplicable where it cannot be. A new engine is one line here, after those that it asks."""

BLEND_SETTINGS = frozenset({"ensemble_als_weight", "ensemble_two_tower_weight", "ensemble_fusion"})
"""Settings that replace the bundle's blend where one of them was set, in the environment or by an experiment's variant."""

SHAPED = frozenset({ContentEngine.name, EnsembleEngine.name})
"""Engines that a variant of an experiment may give other weights."""

MOST_FORGOTTEN = 10_000
"""Items without an entry that were popular once and may linger, before the catalogue is made anew without them: bounds memory."""

SIMILAR_CHAIN = ("als", "two_tower", "content_based")
"""Engines that compare items, best-informed first."""


class Recommender:
    """Immutable: swap it as one reference, so that every answer comes from one bundle, one catalogue and one popularity."""

    def __init__(
        self,
        bundle: Bundle,
        catalogue: Catalogue | None = None,
        popularity: Popularity | None = None,
        settings: Settings | None = None,
        previous: Recommender | None = None,
        young: YoungItems | None = None,
        windows: Windows | None = None,
    ) -> None:
        """`catalogue`, `popularity`: None takes the bundle's own. `previous`: what it replaces, to take over what still holds.

        `young`: items that came after the bundle; left out when their factors were made with another model or other weights.
        """
        self.bundle, self.settings = bundle, settings or Settings()
        self.made_with = made_with(bundle.als, self.settings.use_cases, self.settings.history_cap) if bundle.als else ""
        self.young = young if young is not None and young.made_with == self.made_with else YoungItems.none()
        rest()
        given = catalogue if catalogue is not None else Catalogue.of(bundle.catalogue)
        self.popularity: Popularity = popularity if popularity is not None else bundle.popular.scores if bundle.popular else {}
        self.windows: Windows = windows if windows is not None else previous.windows if previous is not None else {}
        bare = [*_shown(self.popularity, self.windows), *self.young.ids.ids]
        known = [item_id for model in (bundle.als, bundle.two_tower) if model is not None for item_id in model.item_ids.ids]
        grown = previous is not None and previous.bundle is bundle and given.extends(previous.catalogue)
        if not grown or given.bare > len(known) + len(bare) + MOST_FORGOTTEN:
            given = given.without_bare()  # what only another bundle, or an old popularity, knew is gone with it
            given = given.updated([], [item.item_id for item in bundle.catalogue if item.item_id not in given.rows])  # deleted since then
            bare += known
        rest()
        self.catalogue: Catalogue = given.with_bare(bare)
        self._build({}, previous.engines if previous else {})
        self._log = structlog.get_logger("engines").bind()

    def _build(self, kept: Mapping[str, Engine], previous: Mapping[str, Engine]) -> None:
        """Make `engines` as the settings say. `kept` are taken as they are; of `previous` what still holds is taken over."""
        self.engines: dict[str, Engine] = {}
        self._absent = {name: f"this release has no engine {name!r}" for name in router.CHAIN}
        for name, build in BUILDERS.items():
            rest()
            try:
                if not getattr(self.settings, f"enable_{name}", True):
                    raise NotApplicable(f"disabled by ENABLE_{name.upper()}=false")
                self.engines[name] = kept.get(name) or build(
                    Parts(
                        bundle=self.bundle,
                        catalogue=self.catalogue,
                        popularity=self.popularity,
                        windows=self.windows,
                        settings=self.settings,
                        engines=self.engines,
                        absent=self._absent,
                        made_with=self.made_with,
                        young=self.young,
                        previous=previous.get(name),
                    )
                )
                del self._absent[name]
            except NotApplicable as cause:
                self._absent[name] = str(cause)

    def with_settings(self, settings: Settings, previous: Recommender | None = None) -> Recommender:
        """The same engines, routed, blended and enabled as `settings` say, which differ from these in core.experiments.OVERRIDES only.

        `previous`: what it replaces, to take over what only that one has built.
        """
        other = copy(self)
        other.settings = settings
        kept = {name: engine for name, engine in self.engines.items() if name not in SHAPED}
        other._build(kept, {**(previous.engines if previous else {}), **self.engines})
        return other

    def with_catalogue(self, catalogue: Catalogue) -> Recommender:
        """The same over another catalogue, at best an `updated` one of `catalogue`: then only what changed is computed."""
        return Recommender(self.bundle, catalogue, self.popularity, self.settings, self, self.young)

    def with_popularity(self, popularity: Popularity, windows: Windows | None = None) -> Recommender:
        """The same with newer popularity, and newer windows (None: the same)."""
        windows = self.windows if windows is None else windows
        rows, deleted = self.catalogue.rows, self.catalogue.deleted
        new = _shown(popularity, {} if windows is self.windows else windows)
        if any(item_id not in rows and item_id not in deleted for item_id in new):
            return Recommender(self.bundle, self.catalogue, popularity, self.settings, self, self.young, windows)
        before = self.engines.get(PopularEngine.name)
        previous = before if isinstance(before, PopularEngine) else None
        other = self._with_engine(PopularEngine(popularity, self.catalogue, windows, previous))
        other.popularity, other.windows = popularity, windows
        return other

    def with_young(self, young: YoungItems) -> Recommender:
        """The same with these items that came after the bundle."""
        rows, deleted, before = self.catalogue.rows, self.catalogue.deleted, self.engines.get(ALSEngine.name)
        grown = any(item_id not in rows and item_id not in deleted for item_id in young.ids.ids)
        if grown or young.made_with != self.made_with or not isinstance(before, ALSEngine):
            return Recommender(self.bundle, self.catalogue, self.popularity, self.settings, self, young)
        other = self._with_engine(
            ALSEngine(before.model, self.catalogue, self.settings.use_cases, before, made_with=self.made_with, young=young)
        )
        other.young = young
        return other

    def _with_engine(self, engine: Engine) -> Recommender:
        """The same with another engine in place of its namesake, also for those that ask it."""
        other = copy(self)
        other.__dict__.pop("_new_items", None)  # made anew when it is asked for: young items may be others
        other.engines = {**self.engines, engine.name: engine}
        for name, asking in self.engines.items():
            if name != engine.name:
                other.engines[name] = asking.over(other.engines)
        return other

    @cached_property
    def _new_items(self) -> NewItems:
        return NewItems(self.catalogue, self.settings.new_item_days, self.young.ids.ids)

    def recommend(self, state: UserState, request: Request) -> Recommendations:
        """An answer of `request.limit` items, fewer only when fewer are eligible.

        The routed engine (or `request.engine`) answers; what it cannot fill goes down the chain, each step labelled in `fallbacks`.
        Raises ConfigurationError for an engine that does not exist.
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
            lines = self._new_items.mixed_in(
                answer.recommendations, explore, state.user_id, request, unused, lambda item_id: metadata(self.catalogue, item_id)
            )
            answer = msgspec.structs.replace(answer, recommendations=lines)
        self._log.debug(
            "recommended",
            user_id=state.user_id,
            interactions=state.events,
            routed=first,
            engine=answer.method_used,
            why="asked for" if request.engine else router.describe(self.settings),
            fallbacks=answer.fallbacks,
            items=len(answer.recommendations),
        )
        return answer

    def similar(self, item_id: str, request: Request) -> Recommendations:
        """Items like `item_id`: by ALS factors, the rest by Two-Tower vectors and then by content; each line's `method` says which.

        Its `user_id` is empty. It has no lines, and causes, for an item that none of them knows.
        """
        nobody = UserState(user_id="")
        allowed = eligible(self.catalogue, nobody, request)
        allowed[self.catalogue.rows_of([item_id])] = False
        return self._descend(nobody, SIMILAR_CHAIN, lambda engine: engine.similar(item_id), allowed, request)

    def explain(self, state: UserState, item_id: str, request: Request) -> Explanation:
        """Why the item is, or is not, in the answer to this request. Raises ConfigurationError as `recommend` does."""
        return explain(self, state, item_id, request)

    def vector_of(self, state: UserState) -> Freshness | None:
        """Whether the stored ALS vector that came with `state` may be used; None without ALS, and for a user without events."""
        engine = self.engines.get(ALSEngine.name)
        return engine.freshness(state) if isinstance(engine, ALSEngine) and state.events else None

    def unavailable(self, name: str) -> str | None:
        """Why engine `name` cannot be asked, or None."""
        return self._absent.get(name)

    def _first(self, state: UserState, request: Request) -> str:
        if request.engine is None:
            return router.route(state.events, self.settings)
        if request.engine not in router.CHAIN:
            raise ConfigurationError(f"there is no engine {request.engine!r}; ask for one of {', '.join(router.CHAIN)}")
        return request.engine

    def _descend(
        self, state: UserState, chain: Sequence[str], ask: Callable[[Engine], Scoring], allowed: Mask, request: Request
    ) -> Recommendations:
        """Ask the engines of `chain` in turn until the answer is full; `allowed` is used up on the way."""
        wanted = min(request.limit, int(np.count_nonzero(allowed)))
        chosen: list[ScoredItem] = []
        fallbacks: list[Fallback] = []
        for name in chain:
            picked, cause = self._ask(name, ask, allowed, wanted - len(chosen), request.reasons)
            chosen += picked
            if cause is not None:
                fallbacks.append(Fallback(engine=name, cause=cause))
            if len(chosen) >= wanted:
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
            for rank, item in enumerate(chosen, 1)
        ]
        return Recommendations(
            user_id=state.user_id,
            method_used=chosen[0].engine if chosen else chain[-1],
            fallbacks=fallbacks,
            interaction_count=state.events,
            model_version=self.bundle.version,
            as_of=state.events,
            recommendations=lines,
        )

    def _ask(
        self, name: str, ask: Callable[[Engine], Scoring], allowed: Mask, wanted: int, reasons: bool
    ) -> tuple[list[ScoredItem], str | None]:
        """What engine `name` picks, and why that is not all that was wanted (None: it is)."""
        if cause := self.unavailable(name):
            return [], cause
        engine = self.engines[name]
        try:
            picked = engine.pick(ask(engine), allowed, wanted, reasons)
        except NotApplicable as nothing:
            return [], str(nothing)
        except Exception as error:  # noqa: BLE001 - a broken engine must not take the answer down: logged, labelled, and the chain goes on
            self._log.exception("engine failed", engine=name, model_version=self.bundle.version)
            return [], f"failed with {type(error).__name__}; the log has the traceback"
        return picked, None if len(picked) >= wanted else f"knew only {len(picked)} of the {wanted} items wanted"


def _shown(popularity: Popularity, windows: Windows) -> Iterator[str]:
    return (item_id for each in (popularity, *windows.values()) for entries in each.values() for item_id, _ in entries)


def metadata(catalogue: Catalogue, item_id: str) -> dict[str, Any]:
    """What the catalogue says about an item; empty for an item without an entry."""
    item = catalogue.get(item_id)
    if item is None:
        return {}
    return {"title": item.title, "item_type": item.item_type, "categories": item.categories, "attributes": item.attributes}
