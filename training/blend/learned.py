"""A learned blend: weights that depend on how sure each engine is and on how many events the user has, fitted to what users took.

With s_e(i) the score of item i by engine e, from 0 for its last to 1 for its first (engines/blending/scales.py),
and u from 0 for a user with few events to 1 for a user with many,

    score(i) = sum over engines e and powers p of  ((1 - u) a_ep + u b_ep) s_e(i)^p        a, b >= 0

maximises the likelihood that the user takes, among the best candidates of every engine, what the user took:

    sum over users  1 / sqrt(taken) * sum over taken items i of  log softmax_i score   -  PENALTY * (|a|^2 + |b|^2) a user

(a conditional logit, McFadden 1974, by L-BFGS-B). Numbers that are not negative keep every part's order and let `explain` say what each
part gave. A likelihood uses every candidate of every voter, so a few hundred voters go further than with a grid, which counts hits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.blending.scales import reshape
from models.ensemble import POWERS, Learned
from training.evaluation import metrics

Floats = npt.NDArray[np.float64]

PENALTY = 0.001
STEPS = 100
FEW, MANY = 5, 95
"""Percentiles of the voters' events that are `few` and `many`."""
NOTHING = 0.001
"""Share of all numbers below which one is left out."""


@dataclass(frozen=True)
class Vote:
    """One user, of so many `events` until then: `scaled (n_engines, n)` f32 the candidates' scores from 0 to 1, `taken (n,)` which of them
    the user took, and `out_of` how many things in all."""

    scaled: npt.NDArray[np.float32]
    taken: npt.NDArray[np.bool_]
    out_of: int
    events: int


def fit(names: Sequence[str], votes: Sequence[Vote]) -> Learned | None:
    """The best numbers for these voters; None when none of them took a candidate, or nothing speaks for what some of them took."""
    from scipy.optimize import minimize

    useful = [vote for vote in votes if vote.taken.any()]
    if not useful:
        return None
    few, many = (max(round(float(np.percentile([vote.events for vote in votes], at))), 1) for at in (FEW, MANY))
    part = np.array([Learned(few=few, many=many, weights={}).part(vote.events) for vote in useful])
    sizes = np.array([len(vote.taken) for vote in useful])
    starts = np.cumsum(sizes) - sizes
    powers = _powers(np.concatenate([vote.scaled for vote in useful], axis=1))
    taken = np.concatenate([vote.taken for vote in useful])
    counts = np.add.reduceat(taken, starts, dtype=np.float64)
    weight = 1.0 / np.sqrt(counts)
    width = len(powers)

    def loss(numbers: Floats) -> tuple[float, Floats]:
        ends = numbers.reshape(2, width).astype(np.float32)
        by_end = ends @ powers
        mine = np.repeat(part, sizes)
        scores = (1.0 - mine) * by_end[0] + mine * by_end[1]
        scores -= np.repeat(np.maximum.reduceat(scores, starts), sizes)
        grown = np.exp(scores)
        total = np.add.reduceat(grown, starts)
        value = float((weight * (counts * np.log(total) - np.add.reduceat(np.where(taken, scores, 0.0), starts))).sum())
        slope = np.repeat(weight * counts / total, sizes) * grown - np.repeat(weight, sizes) * taken
        gradient = np.concatenate([powers @ ((1.0 - mine) * slope).astype(np.float32), powers @ (mine * slope).astype(np.float32)])
        penalty = PENALTY * float(numbers @ numbers)
        return value / len(useful) + penalty, gradient.astype(np.float64) / len(useful) + 2.0 * PENALTY * numbers

    found = minimize(loss, np.ones(2 * width), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * (2 * width), options={"maxiter": STEPS})
    numbers = np.where(found.x < NOTHING * found.x.sum(), 0.0, found.x).reshape(2, len(names), len(POWERS))
    if not numbers.sum(axis=(1, 2)).all():
        return None
    told = numbers.tolist()
    weights = {name: (tuple(told[0][at]), tuple(told[1][at])) for at, name in enumerate(names) if numbers[:, at].any()}
    return Learned(few=few, many=many, weights=weights)


def shares(learned: Learned, votes: Sequence[Vote]) -> dict[str, float]:
    """Engine -> its mean weight over these users."""
    found = [learned.at(vote.events) for vote in votes]
    return {name: float(np.mean([sum(each[name]) for each in found])) for name in learned.weights}


def ndcg(names: Sequence[str], learned: Learned, votes: Sequence[Vote], k: int) -> Floats:
    """(n_votes,): the NDCG@k of each user by this blend."""
    gains = np.zeros(len(votes))
    for at, vote in enumerate(votes):
        numbers = learned.at(vote.events)
        parts = [reshape(scaled, numbers[name]) for name, scaled in zip(names, vote.scaled, strict=True) if name in numbers]
        scores = np.sum(parts, axis=0)
        length = min(k, len(scores))
        best = np.argsort(-scores, kind="stable")[:length]
        gains[at] = metrics.ndcg(vote.taken[None, best], np.array([max(vote.out_of, 1)]), k)[0]
    return gains


def _powers(scaled: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n_engines * n_powers, n): those of the first engine first."""
    stacked = np.stack([np.sqrt(scaled), scaled, scaled * scaled], axis=1)
    return stacked.reshape(-1, scaled.shape[1])
