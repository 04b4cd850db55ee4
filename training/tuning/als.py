"""Searches hyperparameters of ALS under a time budget, with TPE (`optuna`) and a validation split.

A trial fits on all items of each user but the last one, and is scored every other sweep. So the
number of sweeps is no search dimension: it is the best point of the curve. A trial ends when its
score no longer improves, or when it is below the median of the earlier trials at the same sweep.
The first trials are the configured hyperparameters and a Sobol sequence over the ranges: random
points leave gaps that TPE rarely explores. The study is in an SQLite file, so a killed or finished
search can be continued.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import structlog
from rich.console import Console
from rich.table import Table

from core.settings import Settings
from models.id_map import IdMap
from training import als
from training.als import Hyperparameters
from training.data import validation
from training.data.dataset import Dataset, Interactions
from training.data.validation import Validation
from training.progress import progress
from training.tuning import study as tune_study
from training.tuning.options import TuneOptions

MAX_SWEEPS = 20
REPORT_EVERY = 2
PATIENCE, LEAST_GAIN = 2, 0.001
"""A fit stops after PATIENCE scores in a row that do not improve by the share LEAST_GAIN: ALS
curves are smooth.
"""
PRUNE_FROM = 6
"""First sweep at which a trial is compared with others. Strong regularization starts low and ends
high: on ML-1M a fit that ends 2.5% above another is 6% below it after two sweeps and above it
before the sixth.
"""
FACTORS = (16, 256)
REGULARIZATION = (0.01, 300.0)
ALPHA = (0.1, 100.0)
POPULARITY_DISCOUNT = (0.0, 0.6)
"""The search ranges, the first three on a log scale. Below 16 factors a model learns little but
popularity; above 256 reads get slow, so only configured factors widen that range. A regularization
below 0.01 has no effect beside confidences of 0.1 and more. On Amazon Sports a discount of 0.6 is
worse than none, on MovieLens one of 0.5.
"""
SOBOL_TRIALS = 16
"""Trials before TPE starts to model: a power of 2, as Sobol sequences need, and four a dimension.
"""
_CUTOFF = 10

log = structlog.get_logger(__name__)


@dataclass
class _Curve:
    """The scores of one fit, sweep by sweep."""

    best: float = 0.0
    sweep: int = 0
    hit: float = 0.0
    worse: int = 0

    def add(self, sweep: int, hit: float, score: float) -> None:
        self.worse = 0 if score > self.best * (1.0 + LEAST_GAIN) else self.worse + 1
        if score > self.best:
            self.best, self.sweep, self.hit = score, sweep, hit


class _NoMoreGain(Exception):
    """Stops a fit whose score no longer improves."""


def search(dataset: Dataset, settings: Settings, options: TuneOptions) -> dict[str, Any]:
    """Search for `options.minutes`, with at most `options.trials` further trials.

    Returns the sections of the file of `tune`: `als`, and `tuned` with the best trials. The first
    trial is the configured hyperparameters, so that the report can compare. Raises DatasetError
    when no user has two items; the caller reports it.
    """
    import optuna

    started = time.monotonic()
    minutes, negatives, seed = options.minutes, options.negatives, settings.training_seed
    deadline = started + 60.0 * minutes
    split = validation.leave_one_out(dataset, seed)
    configured = als.hyperparameters(settings)
    factors = (FACTORS[0], max(FACTORS[1], configured.factors))
    first = _first_points(configured, factors, seed)
    order = "" if split.ordered else "-drawn"
    study = tune_study.open_study(
        options.study,
        f"als-{dataset.sha256[:16]}{order}-negatives-{negatives}-seed-{seed}",
        seed,
        SOBOL_TRIALS,
        optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=PRUNE_FROM),
        first,
    )

    with progress("searching", total=60.0 * minutes) as show:

        def objective(trial: Any) -> float:
            hyperparameters = Hyperparameters(
                factors=trial.suggest_int("factors", *factors, log=True),
                regularization=trial.suggest_float("regularization", *REGULARIZATION, log=True),
                alpha=trial.suggest_float("alpha", *ALPHA, log=True),
                popularity_discount=trial.suggest_float(
                    "popularity_discount", *POPULARITY_DISCOUNT
                ),
                iterations=MAX_SWEEPS,
            )

            def judge(sweep: int, score: float) -> None:
                trial.report(score, sweep)
                best = max(
                    (complete.value for complete in tune_study.complete(study)), default=None
                )
                text = f"trial {trial.number}, sweep {sweep}: {score:.4f}"
                show.at(
                    time.monotonic() - started,
                    text if best is None else f"{text}, best so far {best:.4f}",
                )
                # However short the budget, one trial is completed: without one there is no result.
                if best is not None and (time.monotonic() > deadline or trial.should_prune()):
                    raise optuna.TrialPruned

            curve = evaluate(split, hyperparameters, seed, negatives, options.threads, judge)
            trial.set_user_attr("iterations", curve.sweep)
            trial.set_user_attr("hit_rate", curve.hit)
            return curve.best

        def stop_in_time(study: Any, _trial: Any) -> None:
            if time.monotonic() > deadline:
                study.stop()

        study.optimize(objective, n_trials=options.trials, callbacks=[stop_in_time])

    finished = tune_study.complete(study)
    ranked = sorted(finished, key=lambda trial: -trial.value)
    return {
        "als": msgspec.to_builtins(_of_trial(ranked[0])),
        "tuned": {
            "objective": f"NDCG@{_CUTOFF}",
            "validation": f"each user's {'last' if split.ordered else 'drawn'} item held out",
            "ranked_among": f"{negatives} sampled items (expected value)"
            if negatives
            else "the whole catalogue",
            "value": ranked[0].value,
            "hit_rate": ranked[0].user_attrs["hit_rate"],
            "configured": next(
                (_row(trial) for trial in finished if trial.params == first[0]), None
            ),
            "trials": tune_study.count_ended(study),
            "finished": len(finished),
            "seconds": round(time.monotonic() - started, 1),
            "minutes": round(minutes, 3),
            "cores": os.cpu_count(),
            "seed": seed,
            "users": len(split.users),
            "dataset": dataset.summary(),
            "ranges": {
                "factors": factors,
                "regularization": REGULARIZATION,
                "alpha": ALPHA,
                "popularity_discount": POPULARITY_DISCOUNT,
                "iterations": (REPORT_EVERY, MAX_SWEEPS),
            },
            "best": [_row(trial) for trial in ranked[:5]],
        },
    }


def evaluate(
    split: Validation,
    hyperparameters: Hyperparameters,
    seed: int,
    negatives: int,
    threads: int,
    judge: Any,
) -> _Curve:
    """Fit on the split, and score the fit every REPORT_EVERY sweeps.

    `judge(sweep, NDCG)` may raise to stop.
    """
    users, items = split.user_items.shape
    user_rows = _places(np.diff(split.user_items.indptr) > 0)
    item_rows = _places(np.bincount(split.user_items.indices, minlength=items) > 0)
    curve = _Curve()

    def on_sweep(sweep: int, user_factors: Any, item_factors: Any) -> None:
        if sweep % REPORT_EVERY:
            return
        hit, score = validation.gain(
            *validation.ranks(split, user_factors, item_factors, user_rows, item_rows),
            negatives,
            _CUTOFF,
        )
        curve.add(sweep, hit, score)
        judge(sweep, score)
        if curve.worse >= PATIENCE:
            raise _NoMoreGain

    try:
        als.fit(
            Interactions(
                split.user_items,
                IdMap([str(row) for row in range(users)]),
                IdMap([str(row) for row in range(items)]),
            ),
            hyperparameters,
            seed,
            threads=threads,
            on_sweep=on_sweep,
        )
    except _NoMoreGain:
        log.debug("fit_stopped_early", hyperparameters=hyperparameters, best_sweep=curve.sweep)
    return curve


def report(sections: dict[str, Any], console: Console) -> None:
    """Print the best trials. `sections`: of `search`."""
    tuned = sections["tuned"]
    table = Table(
        title=(
            f"Best of {tuned['finished']} finished and {tuned['trials'] - tuned['finished']} "
            f"stopped trials"
        )
    )
    names = als.Hyperparameters.__struct_fields__
    for column in (tuned["objective"], *(name.replace("_", " ") for name in names)):
        table.add_column(column, justify="right")
    for row in tuned["best"]:
        table.add_row(f"{row['value']:.4f}", *(f"{row[name]:.4g}" for name in names))
    console.print(table)
    if (configured := tuned["configured"]) is not None:
        console.print(
            f"The configured hyperparameters reach {configured['value']:.4f} on this "
            f"validation split "
            f"({tuned['validation']}, among {tuned['ranked_among']})."
        )


def _first_points(
    configured: Hyperparameters, factors: tuple[int, int], seed: int
) -> list[dict[str, float]]:
    """The configured hyperparameters (within the ranges), then a scrambled Sobol sequence.

    The sequence is even on the scale that each range has.
    """
    from scipy.stats import qmc

    on_log_scale = {"factors": factors, "regularization": REGULARIZATION, "alpha": ALPHA}
    ranges = {**on_log_scale, "popularity_discount": POPULARITY_DISCOUNT}
    low, high = (
        [
            np.log(limits[end]) if name in on_log_scale else limits[end]
            for name, limits in ranges.items()
        ]
        for end in (0, 1)
    )
    points = qmc.scale(qmc.Sobol(d=len(ranges), rng=seed).random(SOBOL_TRIALS), low, high)
    points[:, : len(on_log_scale)] = np.exp(points[:, : len(on_log_scale)])
    first = [
        min(max(getattr(configured, name), bottom), top) for name, (bottom, top) in ranges.items()
    ]
    return [
        {**dict(zip(ranges, map(float, point), strict=True)), "factors": round(float(point[0]))}
        for point in [first, *points]
    ]


def _places(used: Any) -> Any:
    """(n,) int32: the index of each used row among the used rows, -1 for the others."""
    return np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)


def _row(trial: Any) -> dict[str, Any]:
    return {"value": trial.value, **msgspec.to_builtins(_of_trial(trial))}


def _of_trial(trial: Any) -> Hyperparameters:
    return Hyperparameters(
        factors=trial.params["factors"],
        regularization=trial.params["regularization"],
        alpha=trial.params["alpha"],
        # missing in studies of older versions
        popularity_discount=trial.params.get("popularity_discount", 0.0),
        iterations=trial.user_attrs["iterations"],
    )
