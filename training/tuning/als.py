"""Searches hyperparameters of ALS under a time budget, with TPE (`optuna`) and a validation split.

A trial fits on all items of each user but the last one, and is scored every other sweep
(`als_trial`). A trial ends when its score no longer improves, or when it is below the median of the
earlier trials at the same sweep. The first trials are the hyperparameters that the search starts
with and a Sobol sequence over the ranges: random points leave gaps that TPE rarely explores. With
the study in an SQLite file, a killed or finished search can be continued.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console

from core.process.tables import Column, Table
from core.settings import Settings
from training import als
from training.data import validation
from training.data.dataset import Dataset
from training.progress import ProgressBar, progress
from training.tuning import gain as tune_gain
from training.tuning import study as tune_study
from training.tuning.als_trial import (
    CUTOFF,
    MAX_SWEEPS,
    REPORT_EVERY,
    SOBOL_TRIALS,
    SWEEPS,
    Judging,
    OutOfTime,
    Space,
    evaluate,
)
from training.tuning.options import DEFAULTS, Scope, TuneOptions

PRUNE_AFTER, PRUNE_FROM = 5, 6
"""Complete trials before any is pruned, and the first sweep at which one may be: strong
regularization starts low and ends high. On ML-1M a fit that ends 2.5% above another is 6% below it
after two sweeps and above it before the sixth.
"""
MOST_USERS, LEAST_USERS, SCORES = 10_000, 1_000, 20_000_000
"""Users whose item is held out: MOST_USERS; without overtime fewer where users times items exceed
SCORES, so that scoring stays short beside fitting, but at least LEAST_USERS.
"""
START_SHARE, TRIAL_SHARE = 1 / 3, 1 / 10
"""Without overtime, the share of the time after which the first trial, or another one, counts by
its best sweep so far: on much data one fit would take all of it.
"""
REPORTED_TRIALS = 5


class Search:
    """One search; `run` may be called again and continues it."""

    def __init__(
        self, dataset: Dataset, settings: Settings, options: TuneOptions, scope: Scope = DEFAULTS
    ) -> None:
        """Raises DatasetError when no user has two items; the caller reports it."""
        import optuna

        self._dataset, self._options, self._scope = dataset, options, scope
        self._seed = seed = settings.training_seed
        users = MOST_USERS
        if not scope.overtime:
            users = min(users, max(LEAST_USERS, SCORES // max(len(dataset.items), 1)))
        split = validation.leave_one_out(dataset, seed, users, scope.where)
        self._judging = Judging(split, seed, options.negatives, options.threads)
        self._space = Space.of(scope.start or als.hyperparameters(settings), scope.fixed)
        self._first = self._space.points(scope.candidates, seed)
        order = "" if split.ordered else "-drawn"
        self._study = tune_study.open_study(
            options.study,
            f"als-{dataset.sha256[:16]}{order}-negatives-{options.negatives}-seed-{seed}",
            seed,
            SOBOL_TRIALS,
            optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=PRUNE_FROM),
            self._first,
        )
        # complete trial of this process -> (n,) NDCG@10 of each held-out item
        self._ndcg: dict[int, npt.NDArray[np.float64]] = {}
        self._trials, self._seconds = 0, 0.0

    def run(self, seconds: float) -> None:
        """Search for `seconds`, with at most `options.trials` trials over all calls.

        Does nothing when it is out of patience. Raises what `scope.report` raises.
        """
        trials = None if self._options.trials is None else self._options.trials - self._trials
        if trials == 0 or seconds <= 0 or self._out_of_patience():
            return
        started = time.monotonic()
        deadline = started + seconds

        def stop_in_time(study: Any, _trial: Any) -> None:
            if time.monotonic() > deadline or self._out_of_patience():
                study.stop()

        with progress("searching ALS", total=seconds) as show:
            self._study.optimize(
                lambda trial: self._try(trial, deadline, show, started),
                n_trials=trials,
                callbacks=[stop_in_time],
            )
        self._seconds += time.monotonic() - started

    def sections(self) -> dict[str, Any] | None:
        """The sections of the file of `tune`: `als`, and `tuned` with the best trials.

        None when no trial is complete.
        """
        finished, split = tune_study.complete(self._study), self._judging.split
        if not finished:
            return None
        negatives = self._options.negatives
        ranked = sorted(finished, key=lambda trial: -trial.value)
        start = self._start_trial()
        return {
            "als": msgspec.to_builtins(self._space.of_trial(ranked[0])),
            "tuned": {
                "objective": f"NDCG@{CUTOFF}",
                "validation": f"each user's {'last' if split.ordered else 'drawn'} item held out",
                "ranked_among": f"{negatives} sampled items (expected value)"
                if negatives
                else "the whole catalogue",
                "value": ranked[0].value,
                "hit_rate": ranked[0].user_attrs["hit_rate"],
                "configured": self._row(start) if start is not None else None,
                "gain": None
                if start is None
                else tune_gain.cross_fitted(self._ndcg, int(start.number), self._seed),
                "trials": tune_study.count_ended(self._study),
                "finished": len(finished),
                "seconds": round(self._seconds, 1),
                "minutes": round(self._options.minutes, 3),
                "cores": os.cpu_count(),
                "seed": self._seed,
                "users": len(split.users),
                "dataset": self._dataset.summary(),
                "ranges": {**self._space.ranges, SWEEPS: (REPORT_EVERY, MAX_SWEEPS)},
                "best": [self._row(trial) for trial in ranked[:REPORTED_TRIALS]],
            },
        }

    def trials(self) -> list[dict[str, Any]]:
        """Every ended trial in order: its best NDCG@10, how it ended, its hyperparameters."""
        return [
            {"ended": trial.state.name.lower(), **self._row(trial)}
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        ]

    def _start_trial(self) -> Any:
        complete = tune_study.complete(self._study)
        return next((trial for trial in complete if trial.params == self._first[0]), None)

    def _try(self, trial: Any, deadline: float, show: ProgressBar, started: float) -> float:
        import optuna

        self._trials += 1
        began = time.monotonic()
        share = START_SHARE if trial.number == 0 else TRIAL_SHARE
        longest = math.inf if self._scope.overtime else 60.0 * self._options.minutes * share
        finished = tune_study.complete(self._study)
        best = max((complete.value for complete in finished), default=None)
        must_complete = best is None and self._scope.overtime

        def judge(sweep: int, score: float | None) -> None:
            text = f"trial {trial.number + 1}, sweep {sweep}" + (
                "" if best is None else f", best NDCG@10 {best:.4f}"
            )
            self._scope.report(text)
            show.at(time.monotonic() - started, text)
            if score is not None:
                trial.report(score, sweep)
            late = time.monotonic() > deadline and not must_complete
            if late or (score is not None and best is not None and trial.should_prune()):
                raise optuna.TrialPruned
            if score is not None and time.monotonic() - began > longest:
                raise OutOfTime

        curve = evaluate(self._judging, self._space.suggest(trial), self._space.fixed_sweeps, judge)
        trial.set_user_attr(SWEEPS, curve.sweeps)
        trial.set_user_attr("hit_rate", curve.hit)
        self._ndcg[trial.number] = curve.ndcg
        return curve.best

    def _out_of_patience(self) -> bool:
        """Whether the latest trials, without the first points, did not better the best one."""
        patience, ended = self._scope.patience, tune_study.count_ended(self._study)
        if patience is None or ended < len(self._first):
            return False
        if not self._space.ranges:  # the sweeps of one point
            return True
        complete = tune_study.complete(self._study)
        best = max(complete, key=lambda trial: trial.value, default=None)
        return best is not None and ended - max(best.number + 1, len(self._first)) >= patience

    def _row(self, trial: Any) -> dict[str, Any]:
        values = trial.intermediate_values.values()
        value = trial.value if trial.value is not None else max(values, default=None)
        return {"value": value, **msgspec.to_builtins(self._space.of_trial(trial))}


def search(dataset: Dataset, settings: Settings, options: TuneOptions) -> dict[str, Any]:
    """Search for `options.minutes`; the sections of the file of `tune`.

    The first trial is the configured hyperparameters, so that the report can compare. However short
    the time, one trial is completed. Raises DatasetError when no user has two items; the caller
    reports it.
    """
    started = Search(dataset, settings, options)
    started.run(60.0 * options.minutes)
    sections = started.sections()
    assert sections is not None, "one trial is completed"
    return sections


def report(sections: dict[str, Any], console: Console) -> None:
    """Print the best trials. `sections`: of `search`."""
    tuned = sections["tuned"]
    names = als.Hyperparameters.__struct_fields__
    table = Table(
        *(
            Column(name.replace("_", " "), place, number=True)
            for place, name in enumerate((tuned["objective"], *names))
        ),
        title=(
            f"Best of {tuned['finished']} finished and {tuned['trials'] - tuned['finished']} "
            f"stopped trials"
        ),
    )
    for row in tuned["best"]:
        table.add(f"{row['value']:.4f}", *(f"{row[name]:.4g}" for name in names))
    table.show(console)
    if (configured := tuned["configured"]) is not None:
        console.print(
            f"The configured hyperparameters reach {configured['value']:.4f} on this "
            f"validation split "
            f"({tuned['validation']}, among {tuned['ranked_among']})."
        )
