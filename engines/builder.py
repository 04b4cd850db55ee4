"""Builds a recommender from a bundle, and derives a new one when an input of it has changed.

`engines/engine_builders.py` builds the engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from core.process.background import pause
from core.settings import Settings
from engines.als import ALSEngine
from engines.blending.ensemble import EnsembleEngine
from engines.catalogue import Catalogue
from engines.content.engine import ContentEngine
from engines.engine_builders import EngineInputs, build_engines, with_engine
from engines.fold import made_with
from engines.popular import PopularEngine, Windows
from engines.recommender import Recommender
from models.als.new_items import NewItemFactors
from models.bundle import Bundle
from models.popular import Popularity

VARIANT_ENGINES = frozenset({ContentEngine.name, EnsembleEngine.name})
"""Engines whose weights a variant of an experiment may change."""

MAX_STALE_BARE_ITEMS = 10_000
"""Formerly popular bare items at most; above it the catalogue is rebuilt without them."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a recommender is built from. `new_items`: factors of items that the bundle lacks."""

    bundle: Bundle
    catalogue: Catalogue
    popularity: Popularity
    windows: Windows
    settings: Settings
    new_items: NewItemFactors


def build(
    bundle: Bundle,
    catalogue: Catalogue | None = None,
    popularity: Popularity | None = None,
    settings: Settings | None = None,
    previous: Recommender | None = None,
) -> Recommender:
    """The recommender of `bundle`, without factors of new items.

    `catalogue`, `popularity`: None for those of the bundle. `previous`: the recommender that this
    one replaces, whose windows and valid results are reused.
    """
    if popularity is None:
        popularity = bundle.popular.scores if bundle.popular else {}
    inputs = Inputs(
        bundle=bundle,
        catalogue=Catalogue.of(bundle.catalogue) if catalogue is None else catalogue,
        popularity=popularity,
        windows={} if previous is None else previous.windows,
        settings=settings or Settings(),
        new_items=NewItemFactors.none(),
    )
    return _assembled(inputs, previous)


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
    engine_inputs = EngineInputs(
        bundle=recommender.bundle,
        catalogue=recommender.catalogue,
        popularity=recommender.popularity,
        windows=recommender.windows,
        settings=settings,
        made_with=recommender.made_with,
        new_items=recommender.new_items,
    )
    engines, absent = build_engines(engine_inputs, shared, reusable)
    return replace(recommender, settings=settings, engines=engines, absent=absent)


def with_catalogue(recommender: Recommender, catalogue: Catalogue) -> Recommender:
    """The recommender with another catalogue.

    If it is an `updated` one of the recommender's own, only the changed rows are computed.
    """
    return _rebuilt(recommender, catalogue=catalogue)


def with_popularity(
    recommender: Recommender, popularity: Popularity, windows: Windows | None = None
) -> Recommender:
    """The recommender with newer popularity, and newer windows (None: the same)."""
    windows = recommender.windows if windows is None else windows
    catalogue, engine = recommender.catalogue, recommender.engines.get(PopularEngine.name)
    if _has_new_rows(
        catalogue, _item_ids(popularity, {} if windows is recommender.windows else windows)
    ):
        return _rebuilt(recommender, popularity=popularity, windows=windows)
    previous = engine if isinstance(engine, PopularEngine) else None
    replacement = PopularEngine(popularity, catalogue, windows, previous)
    return replace(
        recommender,
        popularity=popularity,
        windows=windows,
        engines=with_engine(recommender.engines, replacement),
    )


def with_new_items(recommender: Recommender, new_items: NewItemFactors) -> Recommender:
    """The recommender with other factors of new items.

    Factors that were made with another model or other weights are ignored.
    """
    catalogue, engine = recommender.catalogue, recommender.engines.get(ALSEngine.name)
    if (
        _has_new_rows(catalogue, new_items.ids.ids)
        or new_items.made_with != recommender.made_with
        or not isinstance(engine, ALSEngine)
    ):
        return _rebuilt(recommender, new_items=new_items)
    replacement = ALSEngine(
        engine.model,
        catalogue,
        recommender.settings.use_cases,
        engine,
        made_with=recommender.made_with,
        new_items=new_items,
    )
    return replace(
        recommender,
        new_items=new_items,
        engines=with_engine(recommender.engines, replacement),
    )


def _rebuilt(recommender: Recommender, **changes: Any) -> Recommender:
    """The recommender with the inputs named in `changes`; it reuses all valid results."""
    inputs = Inputs(
        bundle=recommender.bundle,
        catalogue=recommender.catalogue,
        popularity=recommender.popularity,
        windows=recommender.windows,
        settings=recommender.settings,
        new_items=recommender.new_items,
    )
    return _assembled(msgspec.structs.replace(inputs, **changes), recommender)


def _assembled(inputs: Inputs, previous: Recommender | None) -> Recommender:
    """The recommender of `inputs`, with all of its engines."""
    bundle, settings = inputs.bundle, inputs.settings
    fold_id = made_with(bundle.als, settings.use_cases, settings.history_cap) if bundle.als else ""
    fits = inputs.new_items.made_with == fold_id
    new_items = inputs.new_items if fits else NewItemFactors.none()
    pause()
    bare_ids = [*_item_ids(inputs.popularity, inputs.windows), *new_items.ids.ids]
    engine_inputs = EngineInputs(
        bundle=bundle,
        catalogue=_complete(bundle, inputs.catalogue, bare_ids, previous),
        popularity=inputs.popularity,
        windows=inputs.windows,
        settings=settings,
        made_with=fold_id,
        new_items=new_items,
    )
    reusable = {} if previous is None else previous.engines
    engines, absent = build_engines(engine_inputs, {}, reusable)
    return Recommender(
        bundle=bundle,
        catalogue=engine_inputs.catalogue,
        popularity=inputs.popularity,
        windows=inputs.windows,
        settings=settings,
        made_with=fold_id,
        new_items=new_items,
        engines=engines,
        absent=absent,
    )


def _complete(
    bundle: Bundle, base: Catalogue, bare_ids: list[str], previous: Recommender | None
) -> Catalogue:
    """The catalogue `base` with a row for each of `bare_ids` and for every id in a model."""
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
