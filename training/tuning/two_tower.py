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
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console

from core.errors import DatasetError
from core.process.tables import Column, Table
from core.settings import Settings
from core.types import Item
from training.data.dataset import Dataset
from training.progress import ProgressBar, progress
from training.tuning import gain as tune_gain
from training.tuning import study as tune_study
from training.tuning import two_tower_space
from training.tuning.options import DEFAULTS, Scope, TuneOptions
from training.two_tower import checkpoint as two_tower_checkpoint
from training.two_tower import fit as two_tower
from training.two_tower.fit_types import FitOptions, Progress, TrainingData
from training.two_tower.hyperparameters import SEARCHED, Hyperparameters, hyperparameters

RANDOM_TRIALS = 6
"""Trials before TPE starts to model."""
PRUNE_AFTER, PRUNE_FROM = 2, 3
"""Complete trials before any is pruned, and the first epoch at which one may be: strong dropout
starts low and ends high.
"""
REPORTED_TRIALS = 5
LEAST_FITS, MEASURED_EPOCHS = 2, 0.2
"""Without overtime, a search gives up when its time is too short for LEAST_FITS fits, by the speed
of the first MEASURED_EPOCHS of the first fit.
"""
_BEST = "best"


class TooSlow(Exception):
    """The time of a search is too short for it: a fit takes about `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"one fit takes about {seconds:.0f} s")


def search(
    dataset: Dataset,
    entries: Sequence[Item],
    settings: Settings,
    options: TuneOptions,
    scope: Scope = DEFAULTS,
) -> dict[str, Any]:
    """Search for `options.minutes`, with at most `options.trials` further trials.

    `entries`: the catalogue.

    Returns the sections of the file of `tune`: `two_tower`, and `tuned` with the best trials. No
    batch starts after the time is over; an unfinished fit counts by its best epoch. Raises
    DatasetError when there is nothing to learn; the caller reports it. Raises TooSlow without
    `scope.overtime`.
    """
    data = TrainingData(dataset, entries, settings.use_cases, scope.where)
    running = _Search(data, settings, options, scope)
    with progress("searching Two-Tower", total=60.0 * options.minutes) as show:
        for _ in count() if options.trials is None else range(options.trials):
            running.try_next(show)
            if running.over:
                break
    return running.sections()


class _Search:
    """One search: its study, and the time that it has."""

    def __init__(
        self, data: TrainingData, settings: Settings, options: TuneOptions, scope: Scope
    ) -> None:
        import optuna

        self.started = time.monotonic()
        self.deadline = self.started + 60.0 * options.minutes
        self.data, self.options, self.scope = data, options, scope
        self.seed = settings.training_seed
        self.configured: Hyperparameters = scope.start or hyperparameters(settings)
        names = [name for name in self.configured.__struct_fields__ if name not in SEARCHED]
        others = [getattr(self.configured, name) for name in names]
        about = (data.dataset.sha256, data.entries, *others)
        digest = hashlib.sha256(msgspec.json.encode(about)).hexdigest()[:16]
        self.study = tune_study.open_study(
            options.study,
            f"two-tower-{digest}-seed-{self.seed}",
            self.seed,
            RANDOM_TRIALS,
            optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=PRUNE_FROM),
            [two_tower_space.point(one, scope) for one in (self.configured, *scope.candidates)],
        )
        path = options.study
        self.checkpoints = path.with_name(f"{path.stem}-two-tower") if path is not None else None
        # trial -> (n,) NDCG@10 of each held-out item at its best epoch
        self.gains: dict[int, npt.NDArray[np.float64]] = {}

    @property
    def over(self) -> bool:
        """Whether the time is over, or the latest trials did not better the best one."""
        if time.monotonic() >= self.deadline:
            return True
        best = max(self._judged(), key=_value, default=None)
        if self.scope.patience is None or best is None:
            return False
        later = tune_study.count_ended(self.study) - max(best.number + 1, RANDOM_TRIALS)
        return bool(later >= self.scope.patience)

    def try_next(self, show: ProgressBar) -> None:
        """Fit the next trial, until it is judged, pruned or out of time."""
        import optuna

        trial = self.study.ask()
        point = two_tower_space.suggest(trial, self.configured, self.scope)
        options = FitOptions(
            self.options.threads,
            seconds=self.deadline - time.monotonic(),
            checkpoints=self.checkpoints,
            on_epoch=self._on_epoch(trial, show),
            on_batch=self._on_batch(trial, point),
        )
        try:
            fitted = two_tower.fit(self.data, point, self.seed, options)
        except optuna.TrialPruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            best = fitted.facts["validation_ndcg@10"]
            # `on_epoch` is not called when the checkpoint is of the last epoch
            trial.set_user_attr(_BEST, best)
            if time.monotonic() >= self.deadline:
                tune_study.fail_and_retry(self.study, trial)
                return
            self.study.tell(trial, best)
        if self.checkpoints is not None:
            two_tower_checkpoint.remove(self.checkpoints)

    def sections(self) -> dict[str, Any]:
        """The sections of the file of `tune`.

        An unfinished fit counts by its best epoch. The configured point is tried first, so there is
        always something to compare with.
        """
        ranked: list[dict[str, Any]] = []
        for trial in sorted(self._judged(), key=_value, reverse=True):
            row = _row(trial, self.configured)
            if all(any(row[name] != better[name] for name in SEARCHED) for better in ranked):
                ranked.append(row)
        configured = [
            row["value"]
            for row in ranked
            if all(row[name] == getattr(self.configured, name) for name in SEARCHED)
        ]
        return {
            "two_tower": {name: ranked[0][name] for name in Hyperparameters.__struct_fields__},
            "tuned": {
                "objective": "NDCG@10",
                "validation": "the last items that are held out for early stopping",
                "ranked_among": "the whole catalogue",
                "value": ranked[0]["value"],
                "configured": next(iter(configured), None),
                "gain": tune_gain.cross_fitted(self.gains, 0, self.seed),
                "trials": tune_study.count_ended(self.study),
                "finished": len(tune_study.complete(self.study)),
                "seconds": round(time.monotonic() - self.started, 1),
                "minutes": round(self.options.minutes, 3),
                "cores": os.cpu_count(),
                "seed": self.seed,
                "dataset": self.data.dataset.summary(),
                "best": ranked[:REPORTED_TRIALS],
                "tried": ranked,
            },
        }

    def _on_epoch(self, trial: Any, show: ProgressBar) -> Callable[[Progress], None]:
        import optuna

        def judge(now: Progress) -> None:
            if now.ndcg is None or now.best is None:
                raise DatasetError(
                    "no user has two items, so none can be held out; collect more events before "
                    "tuning"
                )
            trial.report(now.ndcg, now.epoch)
            trial.set_user_attr(_BEST, now.best)
            if now.gains is not None and now.ndcg == now.best:
                self.gains[trial.number] = now.gains
            show.at(
                time.monotonic() - self.started,
                f"trial {trial.number}, epoch {now.epoch}: {now.ndcg:.4f}, its best {now.best:.4f}",
            )
            if time.monotonic() < self.deadline and trial.should_prune():
                raise optuna.TrialPruned

        return judge

    def _on_batch(self, trial: Any, point: Hyperparameters) -> Callable[[float], None]:
        started: list[float] = []

        def on_batch(done: float) -> None:
            self.scope.report(f"trial {trial.number + 1}, epoch {int(done) + 1}")
            now = time.monotonic()
            if not started:
                started.append(now)
            if not self.scope.overtime and trial.number == 0 and done >= MEASURED_EPOCHS:
                seconds = (now - started[0]) / done * point.epochs
                if LEAST_FITS * seconds > 60.0 * self.options.minutes:
                    raise TooSlow(seconds)

        return on_batch

    def _judged(self) -> list[Any]:
        """The trials that an epoch has judged, also those that were pruned or ran out of time."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if _BEST in trial.user_attrs]


def report(sections: dict[str, Any], console: Console) -> None:
    """Print the best trials. `sections`: of `search`."""
    tuned = sections["tuned"]
    table = Table(
        *(
            Column(name.replace("_", " "), place, number=True)
            for place, name in enumerate((tuned["objective"], *SEARCHED, "complete"))
        ),
        title=(
            f"Two-Tower: best of {tuned['finished']} finished and "
            f"{tuned['trials'] - tuned['finished']} other trials"
        ),
    )
    for row in tuned["best"]:
        table.add(f"{row['value']:.4f}", *(f"{row[name]:.3g}" for name in SEARCHED), row["ended"])
    table.show(console)
    if tuned["configured"] is not None:
        console.print(
            f"The configured hyperparameters reach {tuned['configured']:.4f} on this "
            f"validation split."
        )


def _value(trial: Any) -> float:
    return float(trial.user_attrs[_BEST])


def _row(trial: Any, configured: Hyperparameters) -> dict[str, Any]:
    ended = {"COMPLETE": "yes", "PRUNED": "given up"}.get(trial.state.name, "not yet")
    return {
        "value": _value(trial),
        "ended": ended,
        **msgspec.to_builtins(two_tower_space.hyperparameters(trial.params, configured)),
    }
