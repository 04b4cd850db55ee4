"""Measures what a search gains over the hyperparameters that it began with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from training.evaluation import metrics

Floats = npt.NDArray[np.float64]
LEAST_USERS = 10
"""With fewer users a half has too few to choose by."""


def cross_fitted(ndcg: Mapping[int, Floats], start: int, seed: int) -> list[float] | None:
    """The gain in mean NDCG@10 of the best trial over the trial `start`, and its 95% interval.

    `ndcg`: trial -> (n,) NDCG@10 of each user's held-out item. The best of many trials is partly
    best by chance, so each half of the users, drawn by `seed`, chooses a trial for the other half
    (cross-fitting). None when `start` has not ended, or with fewer than LEAST_USERS users.
    """
    if start not in ndcg or len(ndcg[start]) < LEAST_USERS:
        return None
    values = np.array([ndcg[start], *(row for trial, row in ndcg.items() if trial != start)])
    order = np.random.default_rng(seed).permutation(values.shape[1])
    half = len(order) // 2
    difference = np.empty(len(order))
    for choosing, judging in ((order[:half], order[half:]), (order[half:], order[:half])):
        best = int(values[:, choosing].mean(axis=1).argmax())  # the first of equals: `start`
        difference[judging] = values[best, judging] - values[0, judging]
    low, high = metrics.bootstrap(difference[:, None], seed)
    return [round(float(number), 6) for number in (difference.mean(), low[0], high[0])]
