"""Searches hyperparameters of Two-Tower under a time budget.

It uses TPE (`optuna`) and NDCG@10 of held-out last items after every epoch.

The held-out items are those of the fit's early stopping, so a trial costs one fit and nothing else.
A trial is pruned when it is below the median of the earlier trials at the same epoch. When the time
is over during a fit, the fit stops there, and the next run resumes it after its last whole epoch. A
fit takes minutes where one of ALS takes seconds. So the first trial is the configured
hyperparameters, few dimensions are searched, and what makes reads slower (history, heads) stays as
configured.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item
from training.data.dataset import Dataset
from training.progress import progress
from training.tuning import study as tune_study
from training.tuning.options import TuneOptions
from training.two_tower import checkpoint as two_tower_checkpoint
from training.two_tower import fit as two_tower
from training.two_tower.fit_types import FitOptions, Progress, TrainingData
from training.two_tower.hyperparameters import Hyperparameters, hyperparameters

HEAD_DIMENSION, LAYERS = (16, 48), (1, 3)
"""The dimension is HEAD_DIMENSION times the heads.

With two heads, 32 to 96: above, a read takes more than a millisecond.
"""
DROPOUT, ID_DROPOUT = (0.0, 0.6), (0.0, 0.3)
LEARNING_RATE = (0.0005, 0.01)
"""On a log scale. Every range is widened to the configured value."""
RANDOM_TRIALS = 6
"""Trials before TPE starts to model."""
PRUNE_AFTER, PRUNE_FROM = 2, 3
"""Complete trials before any is pruned, and the first epoch at which one may be: strong dropout
starts low and ends high.
"""
SEARCHED = ("dimension", "layers", "dropout", "id_dropout", "learning_rate")
REPORTED_TRIALS = 5
_BEST = "best"


def search(
    dataset: Dataset, entries: Sequence[Item], settings: Settings, options: TuneOptions
) -> dict[str, Any]:
    """Search for `options.minutes`, with at most `options.trials` further trials.

    `entries`: the catalogue.

    Returns the sections of the file of `tune`: `two_tower`, and `tuned` with the best trials. No
    batch starts after the time is over; an unfinished fit counts by its best epoch. Raises
    DatasetError when there is nothing to learn; the caller reports it.
    """
    import optuna

    started = time.monotonic()
    deadline = started + 60.0 * options.minutes
    configured = hyperparameters(settings)
    about = (
        dataset.sha256,
        entries,
        *(
            getattr(configured, name)
            for name in configured.__struct_fields__
            if name not in SEARCHED
        ),
    )
    digest = hashlib.sha256(msgspec.json.encode(about)).hexdigest()[:16]
    name = f"two-tower-{digest}-seed-{settings.training_seed}"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=PRUNE_FROM)
    study = tune_study.open_study(
        options.study, name, settings.training_seed, RANDOM_TRIALS, pruner, [_point(configured)]
    )
    checkpoints = options.study.with_name(f"{options.study.stem}-two-tower")
    data = TrainingData(dataset, entries, settings.use_cases)

    with progress("searching", total=60.0 * options.minutes) as show:

        def run_trial() -> None:
            trial = study.ask()
            point = _suggest(trial, configured)

            def judge(now: Progress) -> None:
                if now.ndcg is None or now.best is None:
                    raise DatasetError(
                        "no user has two items, so none can be held out; collect more "
                        "events before tuning"
                    )
                trial.report(now.ndcg, now.epoch)
                trial.set_user_attr(_BEST, now.best)
                show.at(
                    time.monotonic() - started,
                    (
                        f"trial {trial.number}, epoch {now.epoch}: {now.ndcg:.4f}, its best "
                        f"{now.best:.4f}"
                    ),
                )
                if time.monotonic() < deadline and trial.should_prune():
                    raise optuna.TrialPruned

            try:
                fit_options = FitOptions(
                    options.threads,
                    seconds=deadline - time.monotonic(),
                    checkpoints=checkpoints,
                    on_epoch=judge,
                )
                fitted = two_tower.fit(data, point, settings.training_seed, fit_options)
            except optuna.TrialPruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                best = fitted.facts["validation_ndcg@10"]
                # `judge` is not called when the checkpoint is of the last epoch
                trial.set_user_attr(_BEST, best)
                if time.monotonic() >= deadline:
                    return tune_study.fail_and_retry(study, trial)
                study.tell(trial, best)
            return two_tower_checkpoint.remove(checkpoints)

        for _ in count() if options.trials is None else range(options.trials):
            run_trial()
            if time.monotonic() >= deadline:
                break

    # An unfinished fit counts by its best epoch. The configured point is tried first, so there is
    # always something to compare with.
    trials = [trial for trial in study.get_trials(deepcopy=False) if _BEST in trial.user_attrs]
    ranked: list[dict[str, Any]] = []
    for trial in sorted(trials, key=_value, reverse=True):
        row = _row(trial, configured)
        if all(any(row[name] != better[name] for name in SEARCHED) for better in ranked):
            ranked.append(row)
    return {
        "two_tower": {name: ranked[0][name] for name in configured.__struct_fields__},
        "tuned": {
            "objective": "NDCG@10",
            "validation": "the last items that are held out for early stopping",
            "ranked_among": "the whole catalogue",
            "value": ranked[0]["value"],
            "configured": next(
                (
                    row["value"]
                    for row in ranked
                    if all(row[name] == getattr(configured, name) for name in SEARCHED)
                ),
                None,
            ),
            "trials": tune_study.count_ended(study),
            "finished": len(tune_study.complete(study)),
            "seconds": round(time.monotonic() - started, 1),
            "minutes": round(options.minutes, 3),
            "cores": os.cpu_count(),
            "seed": settings.training_seed,
            "dataset": dataset.summary(),
            "best": ranked[:REPORTED_TRIALS],
        },
    }


def report(sections: dict[str, Any], console: Console) -> None:
    """Print the best trials. `sections`: of `search`."""
    tuned = sections["tuned"]
    table = Table(
        title=(
            f"Two-Tower: best of {tuned['finished']} finished and "
            f"{tuned['trials'] - tuned['finished']} other trials"
        )
    )
    for column in (tuned["objective"], *SEARCHED, "complete"):
        table.add_column(column, justify="right")
    for row in tuned["best"]:
        table.add_row(
            f"{row['value']:.4f}", *(f"{row[name]:.3g}" for name in SEARCHED), row["ended"]
        )
    console.print(table)
    if tuned["configured"] is not None:
        console.print(
            f"The configured hyperparameters reach {tuned['configured']:.4f} on this "
            f"validation split."
        )


def _point(configured: Hyperparameters) -> dict[str, float]:
    return {
        "head_dimension": configured.dimension // configured.heads,
        "layers": configured.layers,
        "dropout": configured.dropout,
        "id_dropout": configured.id_dropout,
        "learning_rate": configured.learning_rate,
    }


def _suggest(trial: Any, configured: Hyperparameters) -> Hyperparameters:
    point = _point(configured)

    def within(name: str, limits: tuple[float, float]) -> tuple[float, float]:
        return min(limits[0], point[name]), max(limits[1], point[name])

    return _hyperparameters(
        {
            "head_dimension": trial.suggest_int(
                "head_dimension", *within("head_dimension", HEAD_DIMENSION), log=True
            ),
            "layers": trial.suggest_int("layers", *within("layers", LAYERS)),
            "dropout": trial.suggest_float("dropout", *within("dropout", DROPOUT)),
            "id_dropout": trial.suggest_float("id_dropout", *within("id_dropout", ID_DROPOUT)),
            "learning_rate": trial.suggest_float(
                "learning_rate", *within("learning_rate", LEARNING_RATE), log=True
            ),
        },
        configured,
    )


def _hyperparameters(params: dict[str, Any], configured: Hyperparameters) -> Hyperparameters:
    named = {name: value for name, value in params.items() if name != "head_dimension"}
    return msgspec.structs.replace(
        configured, dimension=params["head_dimension"] * configured.heads, **named
    )


def _value(trial: Any) -> float:
    return float(trial.user_attrs[_BEST])


def _row(trial: Any, configured: Hyperparameters) -> dict[str, Any]:
    ended = {"COMPLETE": "yes", "PRUNED": "given up"}.get(trial.state.name, "not yet")
    return {
        "value": _value(trial),
        "ended": ended,
        **msgspec.to_builtins(_hyperparameters(trial.params, configured)),
    }
