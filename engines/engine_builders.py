"""Builds the engines of a recommender.

They are built in the order of BUILDERS; each may use the engines before it. An engine reuses what
its predecessor in the previous recommender has computed, as far as it is still valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from core.process.background import pause
from core.settings import Settings
from engines import router
from engines.als import ALSEngine
from engines.base import Engine, NotApplicable
from engines.blending.ensemble import EnsembleEngine
from engines.blending.prior import Prior
from engines.catalogue import Catalogue
from engines.content.engine import ContentEngine
from engines.popular import PopularEngine, Windows
from engines.selection.explore import NewItems
from engines.two_tower import TwoTowerEngine
from models.als.new_items import NewItemFactors
from models.bundle import Bundle
from models.ensemble import Blend
from models.popular import Popularity


class EngineInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is built from.

    `made_with`: what stored ALS vectors must be made with (engines.fold.made_with). `new_items`:
    their factors. `engines`: the engines built before; `absent`: engine -> why there is none.
    `previous`: the engine of the same name that is replaced.
    """

    bundle: Bundle
    catalogue: Catalogue
    popularity: Popularity
    windows: Windows
    settings: Settings
    made_with: str
    new_items: NewItemFactors
    engines: Mapping[str, Engine] = {}
    absent: Mapping[str, str] = {}
    previous: Engine | None = None

    def missing(self, part: str) -> NotApplicable:
        """The error for an engine whose `part` is not in the bundle."""
        return NotApplicable(self.bundle.missing.get(part, f"the bundle has no part {part!r}"))


def _als(inputs: EngineInputs) -> Engine:
    model = inputs.bundle.als
    previous = inputs.previous if isinstance(inputs.previous, ALSEngine) else None
    if model is None:
        raise inputs.missing("als")
    return ALSEngine(
        model,
        inputs.catalogue,
        inputs.settings.use_cases,
        previous,
        made_with=inputs.made_with,
        new_items=inputs.new_items,
    )


def _two_tower(inputs: EngineInputs) -> Engine:
    model = inputs.bundle.two_tower
    previous = inputs.previous if isinstance(inputs.previous, TwoTowerEngine) else None
    if model is None:
        raise inputs.missing("two_tower")
    return TwoTowerEngine(model, inputs.catalogue, previous)


def _popular(inputs: EngineInputs) -> Engine:
    previous = inputs.previous if isinstance(inputs.previous, PopularEngine) else None
    return PopularEngine(inputs.popularity, inputs.catalogue, inputs.windows, previous)


def _content(inputs: EngineInputs) -> Engine:
    model = inputs.bundle.content
    previous = inputs.previous if isinstance(inputs.previous, ContentEngine) else None
    if model is None:
        raise inputs.missing("content")
    popular = inputs.engines.get(PopularEngine.name)
    share = inputs.settings.content_popularity_share
    prior = None
    if share and isinstance(popular, PopularEngine):
        prior = Prior(popular, NewItems(inputs.catalogue, inputs.settings.new_item_days), share)
    return ContentEngine(
        model, inputs.catalogue, inputs.settings.use_cases, inputs.bundle.catalogue, previous, prior
    )


def blend_of(settings: Settings) -> Blend:
    """The blend of the settings."""
    weights = {"als": settings.ensemble_als_weight, "two_tower": settings.ensemble_two_tower_weight}
    return Blend(weights=weights, method=settings.ensemble_fusion)


def _ensemble(inputs: EngineInputs) -> Engine:
    blend, settings = inputs.bundle.ensemble, inputs.settings
    if blend is None or not settings.model_fields_set.isdisjoint(BLEND_SETTINGS):
        blend = blend_of(settings)
    for name in blend.shares:
        if name not in inputs.engines:
            raise NotApplicable(f"{name}: {inputs.absent.get(name, 'there is no such engine')}")
    return EnsembleEngine(inputs.engines, blend)


BUILDERS: Mapping[str, Callable[[EngineInputs], Engine]] = {
    "als": _als,
    "two_tower": _two_tower,
    "popular": _popular,
    "content_based": _content,
    "ensemble": _ensemble,
}
"""Engine -> its builder, which raises NotApplicable if there can be none.

A new engine needs one line here, after the engines that it uses."""

BLEND_SETTINGS = frozenset({"ensemble_als_weight", "ensemble_two_tower_weight", "ensemble_fusion"})
"""Settings that replace the bundle's blend if at least one of them is set, in the environment or by
a variant of an experiment."""

VARIANT_ENGINES = frozenset({ContentEngine.name, EnsembleEngine.name})
"""Engines whose weights a variant of an experiment may change."""


def build_engines(
    inputs: EngineInputs, shared: Mapping[str, Engine], reusable: Mapping[str, Engine]
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Build the engines: name -> engine, and name -> why there is none.

    `shared`: engines to use unchanged; `reusable`: engines whose valid results are reused.
    """
    engines: dict[str, Engine] = {}
    absent = {name: f"this release has no engine {name!r}" for name in router.CHAIN}
    for name, build_engine in BUILDERS.items():
        pause()
        try:
            if not getattr(inputs.settings, f"enable_{name}", True):
                raise NotApplicable(f"disabled by ENABLE_{name.upper()}=false")
            engine_inputs = msgspec.structs.replace(
                inputs, engines=engines, absent=absent, previous=reusable.get(name)
            )
            engines[name] = shared.get(name) or build_engine(engine_inputs)
            del absent[name]
        except NotApplicable as cause:
            absent[name] = str(cause)
    return engines, absent


def with_engine(engines: Mapping[str, Engine], replacement: Engine) -> dict[str, Engine]:
    """`engines` with `replacement` under its name, also inside of the engines that use it."""
    replaced = {**engines, replacement.name: replacement}
    for name, engine in engines.items():
        if name != replacement.name:
            replaced[name] = engine.over(replaced)
    return replaced
