"""Fits one candidate of the ALS search and scores it sweep by sweep; says what is searched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from models.id_map import IdMap
from training import als
from training.als import Hyperparameters
from training.data import validation
from training.data.dataset import Interactions
from training.data.validation import Validation

MAX_SWEEPS = 20
REPORT_EVERY = 2
PATIENCE, LEAST_GAIN = 2, 0.001
"""A fit stops after PATIENCE scores in a row that do not improve by the share LEAST_GAIN: ALS
curves are smooth.
"""
LOG_SCALE = ("factors", "regularization", "alpha")
RANGES: dict[str, tuple[float, float]] = {
    "factors": (16, 256),
    "regularization": (0.01, 300.0),
    "alpha": (0.1, 100.0),
    "popularity_discount": (0.0, 0.6),
}
"""The search ranges; those of LOG_SCALE on a log scale. Below 16 factors a model learns little but
popularity; above 256 reads get slow, so only configured factors widen that range. A regularization
below 0.01 has no effect beside confidences of 0.1 and more. On Amazon Sports a discount of 0.6 is
worse than none, on MovieLens one of 0.5.
"""
SWEEPS = "iterations"
"""It is no search dimension: it is the best point of the curve of a fit."""
SEARCHED = (*RANGES, SWEEPS)
USUAL_CHOICES = (
    Hyperparameters(factors=64, regularization=15.0, alpha=0.8, popularity_discount=0.2),
    Hyperparameters(factors=96, regularization=200.0, alpha=80.0, popularity_discount=0.1),
)
"""About what long searches chose on dense data (MovieLens, the simulator) and on sparse data
(RetailRocket, Amazon Sports): benchmarks/results/*-hyperparameters.json. A search of a minute tries
them before the Sobol sequence.
"""
SOBOL_TRIALS = 16
"""Trials before TPE starts to model: a power of 2, as Sobol sequences need, and four a dimension.
"""
CUTOFF = 10

log = structlog.get_logger(__name__)


@dataclass
class Curve:
    """The scores of one fit by sweep.

    `ndcg (n,)`: of each held-out item at the best sweep. `stopped`: by OutOfTime.
    """

    best: float = -1.0
    sweep: int = 0
    hit: float = 0.0
    worse: int = 0
    ndcg: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    stopped: bool = False

    @property
    def sweeps(self) -> int:
        """The sweeps to fit with: those of the best score, or the most if it still improved."""
        return MAX_SWEEPS if self.stopped and self.worse == 0 else self.sweep

    def add(self, sweep: int, hit: npt.NDArray[np.float64], ndcg: npt.NDArray[np.float64]) -> float:
        """Add the gains of the held-out items after `sweep`; returns their mean NDCG."""
        score = float(ndcg.mean())
        self.worse = 0 if score > self.best * (1.0 + LEAST_GAIN) else self.worse + 1
        if score > self.best:
            self.best, self.sweep, self.hit, self.ndcg = score, sweep, float(hit.mean()), ndcg
        return score


class _NoMoreGain(Exception):
    """Stops a fit whose score no longer improves."""


class OutOfTime(Exception):
    """Stops a fit, which then counts by its best sweep so far."""


@dataclass(frozen=True)
class Space:
    """What is searched: `ranges` by name; the rest keeps the value of `start`.

    `fixed_sweeps`: the number of sweeps is that of `start`, not the best of the curve.
    """

    start: Hyperparameters
    ranges: dict[str, tuple[float, float]]
    fixed_sweeps: bool = False

    @classmethod
    def of(cls, start: Hyperparameters, fixed: Collection[str] = ()) -> Space:
        """RANGES without the `fixed` names; the factors of `start` may widen theirs."""
        ranges = {name: limits for name, limits in RANGES.items() if name not in fixed}
        if "factors" in ranges:
            low, high = ranges["factors"]
            ranges["factors"] = (low, max(high, start.factors))
        return cls(start, ranges, SWEEPS in fixed)

    def points(self, candidates: Sequence[Hyperparameters], seed: int) -> list[dict[str, float]]:
        """`start` and `candidates` within the ranges, then a scrambled Sobol sequence.

        The sequence is even on the scale that each range has.
        """
        points = [[*map(self._clip, self.ranges, self._values(one))] for one in candidates]
        return [
            {
                name: round(value) if name == "factors" else float(value)
                for name, value in zip(self.ranges, point, strict=True)
            }
            for point in (
                [*map(self._clip, self.ranges, self._values(self.start))],
                *points,
                *self._sobol(seed),
            )
        ]

    def suggest(self, trial: Any) -> Hyperparameters:
        """The hyperparameters of a new trial, with the most sweeps."""
        values: dict[str, float] = {
            name: trial.suggest_int(name, int(low), int(high), log=True)
            if name == "factors"
            else trial.suggest_float(name, low, high, log=name in LOG_SCALE)
            for name, (low, high) in self.ranges.items()
        }
        sweeps = self.start.iterations if self.fixed_sweeps else MAX_SWEEPS
        return msgspec.structs.replace(self.start, **values, iterations=sweeps)

    def of_trial(self, trial: Any) -> Hyperparameters:
        """The hyperparameters of an ended trial, with its best number of sweeps."""
        # missing in studies of older versions
        values = {"popularity_discount": 0.0} if "popularity_discount" in self.ranges else {}
        sweeps = trial.user_attrs.get(SWEEPS, self.start.iterations)
        return msgspec.structs.replace(self.start, **{**values, **trial.params}, iterations=sweeps)

    def _values(self, hyperparameters: Hyperparameters) -> list[float]:
        return [getattr(hyperparameters, name) for name in self.ranges]

    def _clip(self, name: str, value: float) -> float:
        low, high = self.ranges[name]
        return min(max(value, low), high)

    def _sobol(self, seed: int) -> npt.NDArray[np.float64]:
        """(SOBOL_TRIALS, n_ranges); without a range there is nothing to spread."""
        from scipy.stats import qmc

        if not self.ranges:
            return np.empty((0, 0))
        logged = [place for place, name in enumerate(self.ranges) if name in LOG_SCALE]
        limits = np.array(list(self.ranges.values())).T
        limits[:, logged] = np.log(limits[:, logged])
        unit = qmc.Sobol(d=len(self.ranges), rng=seed).random(SOBOL_TRIALS)
        points: npt.NDArray[np.float64] = qmc.scale(unit, *limits)
        points[:, logged] = np.exp(points[:, logged])
        return points


@dataclass(frozen=True)
class Judging:
    """How fits are judged: on a `split`, among `negatives` sampled items (0: the catalogue)."""

    split: Validation
    seed: int
    negatives: int
    threads: int


def evaluate(
    judging: Judging,
    hyperparameters: Hyperparameters,
    fixed_sweeps: bool,
    judge: Callable[[int, float | None], None],
) -> Curve:
    """Fit on the split, and score the fit every REPORT_EVERY sweeps.

    With `fixed_sweeps` only the last sweep is scored. `judge(sweep, NDCG)` is called after every
    sweep, NDCG is None where it is not scored; it may raise to stop: OutOfTime after a score.
    """
    split = judging.split
    users, items = split.user_items.shape
    user_rows = _places(np.diff(split.user_items.indptr) > 0)
    item_rows = _places(np.bincount(split.user_items.indices, minlength=items) > 0)
    curve = Curve()

    def on_sweep(sweep: int, user_factors: Any, item_factors: Any) -> None:
        last = sweep == hyperparameters.iterations
        if not last and (fixed_sweeps or sweep % REPORT_EVERY):
            return judge(sweep, None)
        ranks = validation.ranks(split, user_factors, item_factors, user_rows, item_rows)
        score = curve.add(sweep, *validation.gains(*ranks, judging.negatives, CUTOFF))
        judge(sweep, score)
        if curve.worse >= PATIENCE:
            raise _NoMoreGain
        return None

    try:
        als.fit(
            Interactions(
                split.user_items,
                IdMap([str(row) for row in range(users)]),
                IdMap([str(row) for row in range(items)]),
            ),
            hyperparameters,
            judging.seed,
            threads=judging.threads,
            on_sweep=on_sweep,
        )
    except _NoMoreGain:
        log.debug("fit_stopped_early", hyperparameters=hyperparameters, best_sweep=curve.sweep)
    except OutOfTime:
        curve.stopped = True
    return curve


def _places(used: Any) -> Any:
    """(n,) int32: the index of each used row among the used rows, -1 for the others."""
    return np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
