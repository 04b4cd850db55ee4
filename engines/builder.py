"""Builds a recommender from a bundle, and derives a new one when a part of it has changed.

Engines are built in the order of BUILDERS; each may use the engines before it. An engine reuses
what its predecessor in the previous recommender has computed, as far as it is still valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

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
from engines.fold import made_with
from engines.popular import PopularEngine, Windows
from engines.recommender import Recommender
from engines.selection.explore import NewItems
from engines.two_tower import TwoTowerEngine
from models.als.new_items import NewItemFactors
from models.bundle import Bundle
from models.ensemble import Blend
from models.popular import Popularity


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is built from.

    `engines`: the engines built before; `absent`: engine -> why there is none. `made_with`: what
    stored ALS vectors must be made with (engines.fold.made_with). `new_items`: their factors.
    `previous`: the engine of the same name that is replaced.
    """

    bundle: Bundle
    catalogue: Catalogue
    popularity: Popularity
    windows: Windows
    settings: Settings
    engines: Mapping[str, Engine]
    absent: Mapping[str, str]
    made_with: str
    new_items: NewItemFactors
    previous: Engine | None = None

    def missing(self, part: str) -> NotApplicable:
        """The error for an engine whose `part` is not in the bundle."""
        return NotApplicable(self.bundle.missing.get(part, f"the bundle has no part {part!r}"))


def _als(parts: Parts) -> Engine:
    model, previous = (
        parts.bundle.als,
        parts.previous if isinstance(parts.previous, ALSEngine) else None,
    )
    if model is None:
        raise parts.missing("als")
    return ALSEngine(
        model,
        parts.catalogue,
        parts.settings.use_cases,
        previous,
        made_with=parts.made_with,
        new_items=parts.new_items,
    )


def _two_tower(parts: Parts) -> Engine:
    model, previous = (
        parts.bundle.two_tower,
        parts.previous if isinstance(parts.previous, TwoTowerEngine) else None,
    )
    if model is None:
        raise parts.missing("two_tower")
    return TwoTowerEngine(model, parts.catalogue, previous)


def _popular(parts: Parts) -> Engine:
    previous = parts.previous if isinstance(parts.previous, PopularEngine) else None
    return PopularEngine(parts.popularity, parts.catalogue, parts.windows, previous)


def _content(parts: Parts) -> Engine:
    model, previous = (
        parts.bundle.content,
        parts.previous if isinstance(parts.previous, ContentEngine) else None,
    )
    if model is None:
        raise parts.missing("content")
    popular, share = parts.engines.get(PopularEngine.name), parts.settings.content_popularity_share
    prior = None
    if share and isinstance(popular, PopularEngine):
        prior = Prior(popular, NewItems(parts.catalogue, parts.settings.new_item_days), share)
    return ContentEngine(
        model, parts.catalogue, parts.settings.use_cases, parts.bundle.catalogue, previous, prior
    )


def blend_of(settings: Settings) -> Blend:
    """The blend of the settings."""
    weights = {"als": settings.ensemble_als_weight, "two_tower": settings.ensemble_two_tower_weight}
    return Blend(weights=weights, method=settings.ensemble_fusion)


def _ensemble(parts: Parts) -> Engine:
    blend, settings = parts.bundle.ensemble, parts.settings
    if blend is None or not settings.model_fields_set.isdisjoint(BLEND_SETTINGS):
        blend = blend_of(settings)
    for name in blend.shares:
        if name not in parts.engines:
            raise NotApplicable(f"{name}: {parts.absent.get(name, 'there is no such engine')}")
    return EnsembleEngine(parts.engines, blend)


BUILDERS: Mapping[str, Callable[[Parts], Engine]] = {
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

MAX_STALE_BARE_ITEMS = 10_000
"""Formerly popular bare items at most; above it the catalogue is rebuilt without them."""


def build(
    bundle: Bundle,
    catalogue: Catalogue | None = None,
    popularity: Popularity | None = None,
    settings: Settings | None = None,
    previous: Recommender | None = None,
    new_items: NewItemFactors | None = None,
    windows: Windows | None = None,
) -> Recommender:
    """The recommender of `bundle`.

    `catalogue`, `popularity`: None for those of the bundle. `windows`: None for those of
    `previous`. `previous`: the recommender that this one replaces, whose valid results are reused.
    `new_items`: their factors, ignored if they were made with another model or other weights.
    """
    settings = settings or Settings()
    fold_id = made_with(bundle.als, settings.use_cases, settings.history_cap) if bundle.als else ""
    new_items = (
        new_items
        if new_items is not None and new_items.made_with == fold_id
        else NewItemFactors.none()
    )
    pause()
    if popularity is None:
        popularity = bundle.popular.scores if bundle.popular else {}
    if windows is None:
        windows = previous.windows if previous is not None else {}
    full_catalogue = _catalogue(
        bundle, catalogue, [*_item_ids(popularity, windows), *new_items.ids.ids], previous
    )
    parts = Parts(
        bundle=bundle,
        catalogue=full_catalogue,
        popularity=popularity,
        windows=windows,
        settings=settings,
        engines={},
        absent={},
        made_with=fold_id,
        new_items=new_items,
    )
    engines, absent = _engines(parts, {}, previous.engines if previous is not None else {})
    return Recommender(
        bundle=bundle,
        catalogue=full_catalogue,
        popularity=popularity,
        windows=windows,
        settings=settings,
        made_with=fold_id,
        new_items=new_items,
        engines=engines,
        absent=absent,
    )


def with_settings(
    recommender: Recommender, settings: Settings, previous: Recommender | None = None
) -> Recommender:
    """The recommender with other `settings` for routing, blending and enabled engines.

    They may differ from the recommender's only in core.experiments.OVERRIDES. `previous`: the
    variant that this one replaces, whose engines are reused as far as they are valid.
    """
    shared = {
        name: engine for name, engine in recommender.engines.items() if name not in VARIANT_ENGINES
    }
    reusable = {**(previous.engines if previous is not None else {}), **recommender.engines}
    engines, absent = _engines(_parts(recommender, settings), shared, reusable)
    return replace(recommender, settings=settings, engines=engines, absent=absent)


def with_catalogue(recommender: Recommender, catalogue: Catalogue) -> Recommender:
    """The recommender with another catalogue.

    If it is an `updated` one of the recommender's own, only the changed rows are computed.
    """
    return build(
        recommender.bundle,
        catalogue,
        recommender.popularity,
        recommender.settings,
        recommender,
        recommender.new_items,
    )


def with_popularity(
    recommender: Recommender, popularity: Popularity, windows: Windows | None = None
) -> Recommender:
    """The recommender with newer popularity, and newer windows (None: the same)."""
    windows = recommender.windows if windows is None else windows
    catalogue, engine = recommender.catalogue, recommender.engines.get(PopularEngine.name)
    if _has_new_rows(
        catalogue, _item_ids(popularity, {} if windows is recommender.windows else windows)
    ):
        return build(
            recommender.bundle,
            catalogue,
            popularity,
            recommender.settings,
            recommender,
            recommender.new_items,
            windows,
        )
    previous = engine if isinstance(engine, PopularEngine) else None
    replacement = PopularEngine(popularity, catalogue, windows, previous)
    return replace(
        recommender,
        popularity=popularity,
        windows=windows,
        engines=_with_engine(recommender.engines, replacement),
    )


def with_new_items(recommender: Recommender, new_items: NewItemFactors) -> Recommender:
    """The recommender with other factors of new items."""
    catalogue, engine = recommender.catalogue, recommender.engines.get(ALSEngine.name)
    if (
        _has_new_rows(catalogue, new_items.ids.ids)
        or new_items.made_with != recommender.made_with
        or not isinstance(engine, ALSEngine)
    ):
        return build(
            recommender.bundle,
            catalogue,
            recommender.popularity,
            recommender.settings,
            recommender,
            new_items,
        )
    use_cases = recommender.settings.use_cases
    replacement = ALSEngine(
        engine.model,
        catalogue,
        use_cases,
        engine,
        made_with=recommender.made_with,
        new_items=new_items,
    )
    return replace(
        recommender, new_items=new_items, engines=_with_engine(recommender.engines, replacement)
    )


def _engines(
    parts: Parts, shared: Mapping[str, Engine], reusable: Mapping[str, Engine]
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Build the engines: name -> engine, and name -> why there is none.

    `shared`: engines to use unchanged; `reusable`: engines whose valid results are reused.
    """
    engines: dict[str, Engine] = {}
    absent = {name: f"this release has no engine {name!r}" for name in router.CHAIN}
    for name, build_engine in BUILDERS.items():
        pause()
        try:
            if not getattr(parts.settings, f"enable_{name}", True):
                raise NotApplicable(f"disabled by ENABLE_{name.upper()}=false")
            engine_parts = msgspec.structs.replace(
                parts, engines=engines, absent=absent, previous=reusable.get(name)
            )
            engines[name] = shared.get(name) or build_engine(engine_parts)
            del absent[name]
        except NotApplicable as cause:
            absent[name] = str(cause)
    return engines, absent


def _parts(recommender: Recommender, settings: Settings) -> Parts:
    return Parts(
        bundle=recommender.bundle,
        catalogue=recommender.catalogue,
        popularity=recommender.popularity,
        windows=recommender.windows,
        settings=settings,
        engines={},
        absent={},
        made_with=recommender.made_with,
        new_items=recommender.new_items,
    )


def _with_engine(engines: Mapping[str, Engine], replacement: Engine) -> dict[str, Engine]:
    """`engines` with `replacement` under its name, also inside of the engines that use it."""
    replaced = {**engines, replacement.name: replacement}
    for name, engine in engines.items():
        if name != replacement.name:
            replaced[name] = engine.over(replaced)
    return replaced


def _catalogue(
    bundle: Bundle, catalogue: Catalogue | None, bare_ids: list[str], previous: Recommender | None
) -> Catalogue:
    """The catalogue with a row for every id in a model, the popularity or the new items."""
    base = catalogue if catalogue is not None else Catalogue.of(bundle.catalogue)
    model_ids = [
        item_id
        for model in (bundle.als, bundle.two_tower)
        if model is not None
        for item_id in model.item_ids.ids
    ]
    extends = (
        previous is not None and previous.bundle is bundle and base.extends(previous.catalogue)
    )
    if not extends or base.bare > len(model_ids) + len(bare_ids) + MAX_STALE_BARE_ITEMS:
        base = base.without_bare()  # removes ids of another bundle or of an old popularity
        # Items of the bundle that are not in the catalogue were deleted after the training.
        deleted = [item.item_id for item in bundle.catalogue if item.item_id not in base.rows]
        base = base.updated([], deleted)
        bare_ids = bare_ids + model_ids
    pause()
    return base.with_bare(bare_ids)


def _has_new_rows(catalogue: Catalogue, item_ids: Iterator[str] | list[str]) -> bool:
    return any(
        item_id not in catalogue.rows and item_id not in catalogue.deleted for item_id in item_ids
    )


def _item_ids(popularity: Popularity, windows: Windows) -> Iterator[str]:
    return (
        item_id
        for by_use_case in (popularity, *windows.values())
        for entries in by_use_case.values()
        for item_id, _ in entries
    )
