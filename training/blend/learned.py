"""Fits a learned blend: engine weights that depend on the score and on the user's number of events.

With s_e(i) the score of item i by engine e, from 0 for its last to 1 for its first
(engines/blending/scales.py), and u from 0 for a user with few events to 1 for a user with many,

    score(i) = sum over engines e and powers p of  ((1 - u) a_ep + u b_ep) s_e(i)^p        a, b >= 0

The fit maximises the likelihood that the user interacts, among the best candidates of every engine,
with the relevant items (those of the user's later interactions):

    sum over users  1 / sqrt(n_relevant) * sum over relevant items i of  log softmax_i score   -
    PENALTY * (|a|^2 + |b|^2) a user

(a conditional logit, McFadden 1974, by L-BFGS-B). Weights of at least 0 keep the order that every
engine gives, and `explain` can say what each engine contributed. A likelihood uses every candidate
of every user, so it needs fewer users than a grid, which counts hits only.
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
MAX_ITERATIONS = 100
FEW_PERCENTILE, MANY_PERCENTILE = 5, 95
"""Percentiles of the users' numbers of events that become `Learned.few` and `Learned.many`."""
NEGLIGIBLE_SHARE = 0.001
"""Weights below this share of the sum of all weights are set to 0."""


@dataclass(frozen=True)
class Example:
    """One user with `events` interactions before the cut.

    `scores (n_engines, n)` f32: the candidates' scores by engine, from 0 to 1. `relevant (n,)`
    bool: candidates that the user interacted with after the cut. `n_relevant`: all such items,
    candidates or not.
    """

    scores: npt.NDArray[np.float32]
    relevant: npt.NDArray[np.bool_]
    n_relevant: int
    events: int


def fit(engines: Sequence[str], examples: Sequence[Example]) -> Learned | None:
    """Fit the weights of `engines` on `examples`.

    Returns None when no candidate of any user is relevant, or when all weights of few-event or of
    many-event users are 0.
    """
    from scipy.optimize import minimize

    useful = [example for example in examples if example.relevant.any()]
    if not useful:
        return None
    counts = [example.events for example in examples]
    few, many = (
        max(round(float(np.percentile(counts, percentile))), 1)
        for percentile in (FEW_PERCENTILE, MANY_PERCENTILE)
    )
    positions = np.array(
        [Learned(few=few, many=many, weights={}).part(example.events) for example in useful]
    )
    sizes = np.array([len(example.relevant) for example in useful])
    starts = np.cumsum(sizes) - sizes
    powers = _powers(np.concatenate([example.scores for example in useful], axis=1))
    relevant = np.concatenate([example.relevant for example in useful])
    n_relevant = np.add.reduceat(relevant, starts, dtype=np.float64)
    user_weights = 1.0 / np.sqrt(n_relevant)
    n_features = len(powers)
    position = np.repeat(positions, sizes)  # u of each candidate's user

    def loss(flat_weights: Floats) -> tuple[float, Floats]:
        by_end = flat_weights.reshape(2, n_features).astype(np.float32) @ powers
        scores = (1.0 - position) * by_end[0] + position * by_end[1]
        scores -= np.repeat(np.maximum.reduceat(scores, starts), sizes)
        exponentials = np.exp(scores)
        totals = np.add.reduceat(exponentials, starts)
        log_likelihoods = n_relevant * np.log(totals) - np.add.reduceat(
            np.where(relevant, scores, 0.0), starts
        )
        value = float((user_weights * log_likelihoods).sum())
        slope = (
            np.repeat(user_weights * n_relevant / totals, sizes) * exponentials
            - np.repeat(user_weights, sizes) * relevant
        )
        gradient = np.concatenate(
            [
                powers @ ((1.0 - position) * slope).astype(np.float32),
                powers @ (position * slope).astype(np.float32),
            ]
        )
        penalty = PENALTY * float(flat_weights @ flat_weights)
        return value / len(useful) + penalty, gradient.astype(np.float64) / len(
            useful
        ) + 2.0 * PENALTY * flat_weights

    bounds = [(0.0, None)] * (2 * n_features)
    solution = minimize(
        loss,
        np.ones(2 * n_features),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": MAX_ITERATIONS},
    ).x
    fitted = np.where(solution < NEGLIGIBLE_SHARE * solution.sum(), 0.0, solution).reshape(
        2, len(engines), len(POWERS)
    )
    if not fitted.sum(axis=(1, 2)).all():
        return None
    few_weights, many_weights = fitted.tolist()
    weights = {
        engine: (tuple(few_weights[place]), tuple(many_weights[place]))
        for place, engine in enumerate(engines)
        if fitted[:, place].any()
    }
    return Learned(few=few, many=many, weights=weights)


def shares(learned: Learned, examples: Sequence[Example]) -> dict[str, float]:
    """Engine -> its mean weight over the users of `examples`."""
    by_user = [learned.at(example.events) for example in examples]
    return {
        engine: float(np.mean([sum(weights[engine]) for weights in by_user]))
        for engine in learned.weights
    }


def ndcg(engines: Sequence[str], learned: Learned, examples: Sequence[Example], k: int) -> Floats:
    """(n_examples,): NDCG@k of each user's candidates, ranked by this blend."""
    gains = np.zeros(len(examples))
    for place, example in enumerate(examples):
        weights = learned.at(example.events)
        parts = [
            reshape(scores, weights[engine])
            for engine, scores in zip(engines, example.scores, strict=True)
            if engine in weights
        ]
        blended = np.sum(parts, axis=0)
        top = np.argsort(-blended, kind="stable")[: min(k, len(blended))]
        gains[place] = metrics.ndcg(
            example.relevant[None, top], np.array([max(example.n_relevant, 1)]), k
        )[0]
    return gains


def _powers(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n_engines * n_powers, n): `scores (n_engines, n)` to each power of POWERS.

    The rows of the first engine come first.
    """
    stacked = np.stack([np.sqrt(scores), scores, scores * scores], axis=1)
    return stacked.reshape(-1, scores.shape[1])
