"""Fits both models once, and chooses the blend and the router's thresholds.

Both choices use the recommender that serves.

The blend is chosen by users with interactions after the cut, the thresholds by other users. The
models are fitted on the events before the cut, without the users who choose the thresholds
(training/tuning/router.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
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
from training import als
from training.blend import choice as blend_choice
from training.blend.grid import BlendChoice
from training.data.dataset import Dataset, Split
from training.data.popularity import popular
from training.evaluation.evaluate import Inputs
from training.job import fitting
from training.tuning import router as tune_router
from training.tuning import router_measurements
from training.tuning.options import TuneOptions
from training.two_tower import command as two_tower_command
from training.two_tower.fit_types import FitOptions, TrainingData
from training.two_tower.hyperparameters import hyperparameters as two_tower_hyperparameters

FIT_SHARE = 0.7
"""Share of the time after which the fit of Two-Tower stops; the rest is for the thresholds."""


def choose(
    dataset: Dataset,
    entries: Sequence[Item],
    settings: Settings,
    parts: Sequence[str],
    options: TuneOptions,
    console: Console,
) -> dict[str, dict[str, Any]]:
    """Choose the `parts`: "blend", "router" or both.

    `entries`: the catalogue. The models use the hyperparameters in `options.output`.

    Returns part -> its sections of the file of `tune`; prints why a part stays as configured and
    has none. The fit of Two-Tower and the evaluation of the thresholds end with the time; a fit of
    ALS and the choice of a blend are completed.
    """
    deadline = time.monotonic() + 60.0 * options.minutes
    try:
        split = dataset.split(settings.holdout_fraction)
    except DatasetError as error:
        console.print(f"{' and '.join(parts).capitalize()}: nothing changes, {error}")
        return {}
    users = (
        router_measurements.draw_users(dataset, settings.training_seed)
        if "router" in parts
        else np.empty(0, np.int32)
    )
    if "router" in parts and len(users) < router_measurements.LEAST_USERS:
        cause = (
            f"a fifth of the users is {len(users)}, at least {router_measurements.LEAST_USERS} are "
            f"needed; collect more events"
        )
        console.print(f"Router: nothing changes, {cause}")
        parts, users = [part for part in parts if part != "router"], users[:0]
        if not parts:
            return {}
    train = split.train & ~np.isin(dataset.user, users)
    examples = TrainingData(dataset, entries, settings.use_cases, train)
    bundle = _fit(examples, settings, options)
    sections: dict[str, dict[str, Any]] = {}
    choice = _choose_blend(bundle, dataset, split, users, settings)
    if choice is not None:
        blend_choice.report(choice, console)
        bundle = replace(bundle, parts={**bundle.parts, "ensemble": choice.blend})
        tuned = {
            "objective": "NDCG@10",
            "validation": "what users interacted with after the cut",
            **choice.facts(),
        }
        sections["blend"] = {"blend": msgspec.to_builtins(choice.blend), "tuned": tuned}
    elif "blend" in parts:
        console.print(f"Blend: nothing changes, {_no_blend(bundle, settings)}.")
    if "router" in parts:
        try:
            sections["router"] = _choose_thresholds(bundle, dataset, users, settings, deadline)
            tune_router.report(sections["router"], console)
        except DatasetError as error:
            console.print(f"Router: nothing changes, {error}")
    return {part: sections[part] for part in parts if part in sections}


def _choose_thresholds(
    bundle: Bundle,
    dataset: Dataset,
    users: npt.NDArray[np.int32],
    settings: Settings,
    deadline: float,
) -> dict[str, Any]:
    recommender = build(bundle, settings=settings)
    measurements = router_measurements.measure(recommender, dataset, users, settings, deadline)
    configured = settings.cold_start_threshold, settings.warm_user_threshold
    verdict = tune_router.judge(measurements, configured, settings.training_seed)
    return tune_router.facts(measurements, verdict, recommender.unavailable("ensemble"))


def _fit(data: TrainingData, settings: Settings, options: TuneOptions) -> Bundle:
    """A bundle of every engine's model, fitted on `data`."""
    path = options.output if options.output.exists() else None
    seconds = min(settings.two_tower_seconds, max(60.0 * options.minutes * FIT_SHARE, 0.001))
    study = options.study
    checkpoints = study.with_name(f"{study.stem}-served") if study is not None else None
    two_tower = two_tower_command.fit_if_available(
        settings,
        data,
        two_tower_hyperparameters(settings, path),
        FitOptions(options.threads, seconds, checkpoints=checkpoints),
    )
    return Bundle.of(
        catalogue=list(data.entries),
        als=fitting.fit_als(
            data.dataset.interactions(data.where),
            als.hyperparameters(settings, path),
            settings.training_seed,
            options.threads,
        ),
        two_tower=two_tower.model if two_tower is not None else None,
        content=ContentModel.fit(data.entries),
        popular=popular(data.dataset, settings, data.where),
    )


def _choose_blend(
    bundle: Bundle, dataset: Dataset, split: Split, users: npt.NDArray[np.int32], settings: Settings
) -> BlendChoice | None:
    """The blend that a retrain would choose, without the choice of `users`."""
    if bundle.two_tower is None:
        return None
    assert bundle.popular is not None, "_fit sets it"
    try:
        inputs = Inputs(bundle.catalogue, bundle.popular.scores, dataset, split, settings)
        return blend_choice.choose(bundle, inputs, users, settings.training_seed)
    except DatasetError:  # no user has a new interaction after the cut; `_no_blend` reports it
        return None


def _no_blend(bundle: Bundle, settings: Settings) -> str:
    """Why no blend was chosen."""
    if bundle.two_tower is None:
        return f"there is no Two-Tower to blend, {two_tower_command.unavailable(settings)}"
    return (
        f"it is set by hand, or the ensemble is off, or fewer than {blend_choice.LEAST_USERS} "
        f"users interacted with new items after the cut"
    )
