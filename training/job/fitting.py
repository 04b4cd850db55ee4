"""Fits both models with progress, and refreshes them over all events.

A retrain and the command line use it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import msgspec

from models.als import ALSModel
from models.two_tower import TwoTowerModel
from training import als
from training.als import Hyperparameters
from training.data.dataset import Interactions, Split
from training.job.context import Context
from training.job.run import Run
from training.progress import progress
from training.two_tower import command as two_tower_command
from training.two_tower.fit_types import FitOptions, TrainingData
from training.two_tower.fit_types import Fitted as FittedTwoTower

NICENESS = 10
"""Of 19: a tenth of the share that a thread of niceness 0 has of a core."""


def fit_als(
    interactions: Interactions,
    hyperparameters: Hyperparameters,
    seed: int,
    threads: int,
    run: Run | None = None,
) -> ALSModel:
    """`als.fit` with a progress bar.

    Records in `run`, as `als`, the seconds of the sweeps alone: what the bare solver would take.
    """
    ends: list[float] = []
    with progress("fitting ALS", hyperparameters.iterations) as show:

        def on_sweep(sweep: int, _users: Any, _items: Any) -> None:
            ends.append(time.monotonic())
            show.at(sweep, f"sweep {sweep}")
            if run is not None:
                run.progress(f"sweep {sweep} of {hyperparameters.iterations}")

        model = als.fit(interactions, hyperparameters, seed, threads=threads, on_sweep=on_sweep)
    if run is not None and len(ends) > 1:
        run.seconds["als"] = round((ends[-1] - ends[0]) * len(ends) / (len(ends) - 1), 3)
    return model


def refresh_als(
    context: Context, fitted: ALSModel, interactions: Interactions, split: Split | None
) -> ALSModel:
    """`fitted` after REFRESH_SWEEPS sweeps over all `interactions`.

    Returns `fitted` itself when it was fitted on all of them.

    Runs beside the evaluation at a lower priority, because the evaluation uses one core only and
    must not wait.
    """
    if split is None:
        return fitted
    _lower_priority()
    started = time.monotonic()
    hyperparameters = msgspec.structs.replace(context.als, iterations=als.REFRESH_SWEEPS)

    def on_sweep(sweep: int, _users: Any, _items: Any) -> None:
        context.run.progress(f"refreshing: sweep {sweep} of {als.REFRESH_SWEEPS}")

    model = als.fit(
        interactions,
        hyperparameters,
        context.seed,
        start=fitted,
        threads=context.options.threads,
        on_sweep=on_sweep,
    )
    context.run.seconds["refresh"] = round(time.monotonic() - started, 3)
    return model


def fit_two_tower(context: Context, data: TrainingData) -> FittedTwoTower | None:
    """Fit Two-Tower on `data`; None, and a line in the log, where it cannot be fitted."""
    options = FitOptions(context.options.threads, context.settings.two_tower_seconds)
    return two_tower_command.fit_if_available(
        context.settings, data, context.two_tower, options, context.run
    )


def refresh_two_tower(
    context: Context, fitted: FittedTwoTower | None, data: TrainingData
) -> TwoTowerModel | None:
    """The model of `fitted` after a short fit on every event.

    Returns the model itself when it was fitted on all of them.

    `data`: what `fitted` was fitted on. Shows no bar: the evaluation runs at the same time and
    shows its own.
    """
    if fitted is None or data.where is None:
        return None if fitted is None else fitted.model
    from training.two_tower import fit as two_tower

    started = time.monotonic()

    def on_batch(done: float) -> None:
        epoch = int(done) + 1
        context.run.progress(f"refreshing Two-Tower: epoch {epoch} of {two_tower.REFRESH_EPOCHS}")

    options = FitOptions(context.options.threads, on_batch=on_batch)
    everything = replace(data, where=None)
    refreshed = two_tower.refresh(fitted, everything, context.two_tower, context.seed, options)
    context.run.seconds["two_tower_refresh"] = round(time.monotonic() - started, 3)
    return refreshed.model


def without_users(model: ALSModel) -> ALSModel:
    """`model` without its user factors: the gate folds users in."""
    return ALSModel(
        model.item_ids,
        model.item_factors,
        regularization=model.regularization,
        alpha=model.alpha,
        confidence=model.confidence,
    )


def _lower_priority() -> None:
    """Lower the priority of this thread, and of those that a solver starts from it.

    Only Linux has a priority a thread.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
