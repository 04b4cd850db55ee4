"""One fit for what is chosen by asking: the blend, by users who took something after the cut, and the router's thresholds, by others.

The models know the events before the cut, without the users whom the thresholds are chosen by (training.tune_router).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item
from engines.builder import build
from models.bundle import Bundle
from models.content import ContentModel
from training.als import Hyperparameters
from training.blend import grid as blend
from training.data.dataset import Bools, Dataset, Split
from training.data.popularity import popular
from training.job import fitting
from training.tuning import router as tune_router
from training.two_tower import command as two_tower_command

FIT_SHARE = 0.7
"""Part of the time after which fitting Two-Tower stops; the rest is for asking."""


def choose(
    dataset: Dataset,
    entries: Sequence[Item],
    settings: Settings,
    chosen: Hyperparameters,
    wanted: Sequence[str],
    *,
    minutes: float,
    checkpoints: Path,
    console: Console,
    threads: int = 0,
) -> dict[str, dict[str, Any]]:
    """`wanted`: blend, router or both. Returns what each adds to the file of `tune`; nothing for one that stays as it is, and says why.

    Two-Tower's fit and the questions about the thresholds end with the time; a fit of ALS and the choice of a blend end what they began.
    `checkpoints`: folder that a killed fit of Two-Tower goes on from.
    """
    deadline = time.monotonic() + 60.0 * minutes
    try:
        split = dataset.split(settings.holdout_fraction)
    except DatasetError as error:
        console.print(f"{' and '.join(wanted).capitalize()}: nothing changes, {error}")
        return {}
    users = tune_router.left_out(dataset, settings.training_seed) if "router" in wanted else np.empty(0, np.int32)
    if "router" in wanted and len(users) < tune_router.LEAST_USERS:
        told = f"a fifth of the users is {len(users)} of the {tune_router.LEAST_USERS} that it takes at least; collect more events"
        console.print(f"Router: nothing changes, {told}")
        wanted, users = [each for each in wanted if each != "router"], users[:0]
        if not wanted:
            return {}
    known = split.train & ~np.isin(dataset.user, users)
    seconds = min(settings.two_tower_seconds, max(60.0 * minutes * FIT_SHARE, 0.001))
    bundle = _fitted(dataset, known, entries, settings.with_overrides({"two_tower_seconds": seconds}), chosen, threads, checkpoints)
    found: dict[str, dict[str, Any]] = {}
    choice = _blend(bundle, dataset, split, users, settings)
    if choice is not None:
        blend.report(choice, console)
        bundle = replace(bundle, parts={**bundle.parts, "ensemble": choice.blend})
        about = {"objective": "NDCG@10", "validation": "what users took after the cut", **choice.facts()}
        found["blend"] = {"blend": msgspec.to_builtins(choice.blend), "tuned": about}
    elif "blend" in wanted:
        console.print(f"Blend: nothing changes, {_no_blend(bundle, settings)}.")
    if "router" in wanted:
        try:
            found["router"] = _router(bundle, dataset, users, settings, deadline)
            tune_router.report(found["router"], console)
        except DatasetError as error:
            console.print(f"Router: nothing changes, {error}")
    return {name: found[name] for name in wanted if name in found}


def _router(bundle: Bundle, dataset: Dataset, users: npt.NDArray[np.int32], settings: Settings, deadline: float) -> dict[str, Any]:
    recommender = build(bundle, settings=settings)
    asked = tune_router.ask(recommender, dataset, users, settings, deadline)
    configured = settings.cold_start_threshold, settings.warm_user_threshold
    verdict = tune_router.judge(asked, configured, settings.training_seed)
    return tune_router.facts(asked, verdict, recommender.unavailable("ensemble"))


def _fitted(
    dataset: Dataset, known: Bools, entries: Sequence[Item], settings: Settings, chosen: Hyperparameters, threads: int, checkpoints: Path
) -> Bundle:
    """Every engine's model of the events in `known`."""
    two_tower = two_tower_command.fit_before(dataset, known, entries, settings, threads, checkpoints=checkpoints)
    return Bundle.of(
        catalogue=list(entries),
        als=fitting.fit_als(dataset.matrix(known), dataset, chosen, settings.training_seed, threads),
        two_tower=two_tower.model if two_tower is not None else None,
        content=ContentModel.fit(entries),
        popular=popular(dataset, settings, known),
    )


def _blend(bundle: Bundle, dataset: Dataset, split: Split, users: npt.NDArray[np.int32], settings: Settings) -> blend.BlendChoice | None:
    """The blend that a retrain would choose, by none of `users`."""
    if bundle.two_tower is None:
        return None
    assert bundle.popular is not None, "made above"
    try:
        return blend.choose(bundle, bundle.catalogue, bundle.popular.scores, dataset, split, users, settings.training_seed, settings)
    except DatasetError:  # nobody took anything new after the cut, which is what `_no_blend` says
        return None


def _no_blend(bundle: Bundle, settings: Settings) -> str:
    if bundle.two_tower is None:
        return f"there is no Two-Tower to blend, {two_tower_command.unavailable(settings)}"
    return f"it is set by hand, or the ensemble is off, or fewer than {blend.LEAST_USERS} users took something new after the cut"
