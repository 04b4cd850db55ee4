"""Hyperparameters of ALS under a time budget: TPE by `optuna`, judged on a validation split.

A trial fits on everything but one item of each user, the last, and is scored every other sweep, so that how many sweeps to do needs no
search dimension: the best point of the curve says it. A trial ends when it no longer gets better, or when it lies below the median of the
earlier ones at the same sweep. The first trials are the configured hyperparameters and a Sobol sequence over the ranges: random points
leave holes that TPE rarely looks into. The study lies in an SQLite file: a killed or finished search goes on where it stood.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
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
from training.data.dataset import Dataset
from training.data.validation import Validation
from training.progress import progress
from training.tuning import study as tune_study

MAX_SWEEPS = 20
REPORT_EVERY = 2
PATIENCE, GAIN = 2, 0.001
"""A fit is stopped after so many scores in a row that are not better by this share: ALS curves are smooth."""
PRUNE_FROM = 6
"""First sweep at which a trial is compared with others. Strong regularization starts slowly and ends high: on ML-1M a fit that ends 2.5%
above another lies 6% below it after two sweeps and passes it before the sixth."""
FACTORS = (16, 256)
REGULARIZATION = (0.01, 300.0)
ALPHA = (0.1, 100.0)
POPULARITY_DISCOUNT = (0.0, 0.6)
"""The ranges that are searched, the first three on a log scale. Below 16 factors little but popularity is learnt, above 256 a read gets
slow, so only configured factors widen that range. A regularization below 0.01 is lost beside confidences of 0.1 and more. On Amazon
Sports a discount of 0.6 is worse than none, on MovieLens one of 0.5."""
SOBOL_TRIALS = 16
"""Trials before TPE starts to model: a power of 2, as Sobol sequences want, and four a dimension."""
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
        self.worse = 0 if score > self.best * (1.0 + GAIN) else self.worse + 1
        if score > self.best:
            self.best, self.sweep, self.hit = score, sweep, hit


class _Enough(Exception):
    """The curve has stopped to rise."""


def search(
    dataset: Dataset,
    settings: Settings,
    *,
    minutes: float,
    trials: int | None,
    study_path: Path,
    negatives: int,
    seed: int,
    threads: int = 0,
) -> dict[str, Any]:
    """Search for `minutes` (and at most `trials` more trials) and return what the report and the file of `tune` say.

    The first trial is the configured hyperparameters, so that the report can say what the search was worth. `negatives`: how many sampled
    items the held-out one is ranked among (0: the whole catalogue). Raises DatasetError when there is nothing to hold out.
    """
    import optuna

    began = time.monotonic()
    deadline = began + 60.0 * minutes
    split = validation.leave_one_out(dataset, seed)
    configured = als.hyperparameters(settings)
    factors = (FACTORS[0], max(FACTORS[1], configured.factors))
    first = _first_points(configured, factors, seed)
    study = tune_study.opened(
        study_path,
        f"als-{dataset.sha256[:16]}{'' if split.ordered else '-drawn'}-negatives-{negatives}-seed-{seed}",
        seed,
        SOBOL_TRIALS,
        optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=PRUNE_FROM),
        first,
    )

    with progress("searching", total=60.0 * minutes) as show:

        def objective(trial: Any) -> float:
            chosen = Hyperparameters(
                factors=trial.suggest_int("factors", *factors, log=True),
                regularization=trial.suggest_float("regularization", *REGULARIZATION, log=True),
                alpha=trial.suggest_float("alpha", *ALPHA, log=True),
                popularity_discount=trial.suggest_float("popularity_discount", *POPULARITY_DISCOUNT),
                iterations=MAX_SWEEPS,
            )

            def judge(sweep: int, score: float) -> None:
                trial.report(score, sweep)
                known_best = max((done.value for done in tune_study.complete(study)), default=None)
                told = f"trial {trial.number}, sweep {sweep}: {score:.4f}"
                show.at(time.monotonic() - began, told if known_best is None else f"{told}, best so far {known_best:.4f}")
                # However short the budget, one trial is finished: without any there is no answer.
                if known_best is not None and (time.monotonic() > deadline or trial.should_prune()):
                    raise optuna.TrialPruned

            curve = evaluate(split, chosen, seed, negatives, threads, judge)
            trial.set_user_attr("iterations", curve.sweep)
            trial.set_user_attr("hit_rate", curve.hit)
            return curve.best

        def stop_in_time(study: Any, _trial: Any) -> None:
            if time.monotonic() > deadline:
                study.stop()

        study.optimize(objective, n_trials=trials, callbacks=[stop_in_time])

    finished = tune_study.complete(study)
    ranked = sorted(finished, key=lambda trial: -trial.value)
    return {
        "als": msgspec.to_builtins(_of_trial(ranked[0])),
        "tuned": {
            "objective": f"NDCG@{_CUTOFF}",
            "validation": f"each user's {'last' if split.ordered else 'drawn'} item held out",
            "ranked_among": f"{negatives} sampled items (expected value)" if negatives else "the whole catalogue",
            "value": ranked[0].value,
            "hit_rate": ranked[0].user_attrs["hit_rate"],
            "configured": next((_row(trial) for trial in finished if trial.params == first[0]), None),
            "trials": tune_study.ended(study),
            "finished": len(finished),
            "seconds": round(time.monotonic() - began, 1),
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


def evaluate(split: Validation, chosen: Hyperparameters, seed: int, negatives: int, threads: int, judge: Any) -> _Curve:
    """Fit on the split, scoring every REPORT_EVERY sweeps; `judge(sweep, NDCG)` may raise to stop."""
    users, items = split.user_items.shape
    user_rows = _places(np.diff(split.user_items.indptr) > 0)
    item_rows = _places(np.bincount(split.user_items.indices, minlength=items) > 0)
    curve = _Curve()

    def on_sweep(sweep: int, user_factors: Any, item_factors: Any) -> None:
        if sweep % REPORT_EVERY:
            return
        hit, score = validation.gain(*validation.ranks(split, user_factors, item_factors, user_rows, item_rows), negatives, _CUTOFF)
        curve.add(sweep, hit, score)
        judge(sweep, score)
        if curve.worse >= PATIENCE:
            raise _Enough

    try:
        als.fit(
            split.user_items,
            IdMap([str(row) for row in range(users)]),
            IdMap([str(row) for row in range(items)]),
            chosen,
            seed,
            threads=threads,
            on_sweep=on_sweep,
        )
    except _Enough:
        log.debug("stopped a fit that no longer got better", hyperparameters=chosen, best_sweep=curve.sweep)
    return curve


def report(found: dict[str, Any], console: Console) -> None:
    """The search in a few lines on the terminal."""
    tuned = found["tuned"]
    table = Table(title=f"Best of {tuned['finished']} finished and {tuned['trials'] - tuned['finished']} given-up trials")
    names = als.Hyperparameters.__struct_fields__
    for column in (tuned["objective"], *(name.replace("_", " ") for name in names)):
        table.add_column(column, justify="right")
    for row in tuned["best"]:
        table.add_row(f"{row['value']:.4f}", *(f"{row[name]:.4g}" for name in names))
    console.print(table)
    if (configured := tuned["configured"]) is not None:
        console.print(
            f"The configured hyperparameters reach {configured['value']:.4f} on this validation split "
            f"({tuned['validation']}, among {tuned['ranked_among']})."
        )


def _first_points(configured: Hyperparameters, factors: tuple[int, int], seed: int) -> list[dict[str, float]]:
    """The configured hyperparameters (within the ranges), and a scrambled Sobol sequence, even on the scale that each range has."""
    from scipy.stats import qmc

    on_log_scale = {"factors": factors, "regularization": REGULARIZATION, "alpha": ALPHA}
    ranges = {**on_log_scale, "popularity_discount": POPULARITY_DISCOUNT}
    low, high = ([np.log(limits[end]) if name in on_log_scale else limits[end] for name, limits in ranges.items()] for end in (0, 1))
    points = qmc.scale(qmc.Sobol(d=len(ranges), rng=seed).random(SOBOL_TRIALS), low, high)
    points[:, : len(on_log_scale)] = np.exp(points[:, : len(on_log_scale)])
    first = [min(max(getattr(configured, name), bottom), top) for name, (bottom, top) in ranges.items()]
    return [{**dict(zip(ranges, map(float, point), strict=True)), "factors": round(float(point[0]))} for point in [first, *points]]


def _places(used: Any) -> Any:
    """(n,) int32: the place of each used row among the used ones, -1 for the others."""
    return np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)


def _row(trial: Any) -> dict[str, Any]:
    return {"value": trial.value, **msgspec.to_builtins(_of_trial(trial))}


def _of_trial(trial: Any) -> Hyperparameters:
    return Hyperparameters(
        factors=trial.params["factors"],
        regularization=trial.params["regularization"],
        alpha=trial.params["alpha"],
        popularity_discount=trial.params.get("popularity_discount", 0.0),  # a search that began before there was one
        iterations=trial.user_attrs["iterations"],
    )
