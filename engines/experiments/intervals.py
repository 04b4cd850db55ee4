"""Computes confidence intervals and sample sizes.

All functions are pure; each has its source and a test on numbers computed by hand.

`error` is one minus the confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POWER = 0.8
"""Share of experiments with the difference to detect that show it; 0.8 is customary."""
_LEAST_EXPECTED = 5
"""Expected users of each variant from which on Pearson's test is valid (Cochran 1954)."""


class Estimate(msgspec.Struct, frozen=True):
    """A number and its interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int, error: float) -> Estimate | None:
    """A share (Wilson 1927: Probable Inference, the Law of Succession, and Statistical Inference).

    None for n = 0.
    """
    if n == 0:
        return None
    z, share = _z(1 - error / 2), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def share_difference(a: tuple[int, int], b: tuple[int, int], error: float) -> Estimate | None:
    """Share of `a` (successes, n) minus that of `b`, from both Wilson intervals.

    Newcombe 1998, Statistics in Medicine 17, method 10.
    """
    one, two = wilson(*a, error), wilson(*b, error)
    if one is None or two is None:
        return None
    value = one.value - two.value
    down = math.hypot(one.value - one.low, two.high - two.value)
    up = math.hypot(one.high - one.value, two.value - two.low)
    return Estimate(value, value - down, value + up)


def mean(values: Floats, error: float) -> Estimate | None:
    """A mean, by the normal distribution and the sample's own variance: `values` (n,), many.

    None for n < 2.
    """
    if len(values) < 2:
        return None
    value, half = float(values.mean()), _z(1 - error / 2) * math.sqrt(_variance_of_mean(values))
    return Estimate(value, value - half, value + half)


def mean_difference(a: Floats, b: Floats, error: float) -> Estimate | None:
    """Mean of `a` minus that of `b`, each by its own variance; None where one has n < 2.

    Welch 1947, with the normal quantile.
    """
    if min(len(a), len(b)) < 2:
        return None
    value = float(a.mean() - b.mean())
    half = _z(1 - error / 2) * math.sqrt(_variance_of_mean(a) + _variance_of_mean(b))
    return Estimate(value, value - half, value + half)


def needed(share: float, detect: float, error: float) -> int | None:
    """Users in each of two groups with which a share that is `detect` (0.1: a tenth) above `share`
    shows, in POWER of all experiments.

    Fleiss: Statistical Methods for Rates and Proportions, 3.2. None for a share of 0 or 1.
    """
    other = min(share * (1 + detect), 1.0)
    if not 0 < share < other:
        return None
    mean_share = (share + other) / 2
    null_term = _z(1 - error / 2) * math.sqrt(2 * mean_share * (1 - mean_share))
    power_term = _z(POWER) * math.sqrt(share * (1 - share) + other * (1 - other))
    return math.ceil((null_term + power_term) ** 2 / (other - share) ** 2)


def balance(users: Sequence[int], weights: Sequence[float]) -> float | None:
    """P-value of the numbers of `users` if drawn by `weights` (Pearson's chi-square).

    None for too few users.
    """
    from scipy.special import chdtrc

    expected = [weight * sum(users) / math.fsum(weights) for weight in weights]
    if min(expected) < _LEAST_EXPECTED:
        return None
    distance = math.fsum(
        (count - mean_count) ** 2 / mean_count
        for count, mean_count in zip(users, expected, strict=True)
    )
    return float(chdtrc(len(users) - 1, distance))


def _variance_of_mean(values: Floats) -> float:
    return float(values.var(ddof=1)) / len(values)


def _z(quantile: float) -> float:
    return NormalDist().inv_cdf(quantile)
