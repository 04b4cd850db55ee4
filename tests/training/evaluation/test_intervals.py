"""Intervals of shares, means and differences, against published and hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from engines.experiments.intervals import (
    balance,
    mean,
    mean_difference,
    needed,
    share_difference,
    wilson,
)

SEED = 20_261_123


def test_a_share_has_the_published_interval() -> None:
    """15 of 148: 0.0624 to 0.1605 (Newcombe 1998, Statistics in Medicine 17, 857-872, table I)."""
    estimate = wilson(15, 148, 0.05)
    assert estimate is not None
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.0624, 0.1605)
    none, every = wilson(0, 20, 0.05), wilson(20, 20, 0.05)
    assert none is not None
    assert every is not None
    assert (none.low, none.high) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert (every.low, every.high) == pytest.approx((0.8389, 1.0), abs=5e-5)
    assert wilson(0, 0, 0.05) is None


def test_a_difference_of_shares_has_the_published_interval() -> None:
    """56 of 70 minus 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, Statistics in Medicine 17, 873-890,
    table II).
    """
    estimate = share_difference((56, 70), (48, 80), 0.05)
    assert estimate is not None
    assert estimate.value == pytest.approx(0.2)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.0524, 0.3339)


def test_the_intervals_of_means_by_hand() -> None:
    """[1, 3]: variance 2, of the mean 1, so 2 +- 1.96. [0, 2, 4]: variance 4, of the mean 4/3.

    Together 7/3.
    """
    a, b = np.array([1.0, 3.0]), np.array([0.0, 2.0, 4.0])
    one, difference = mean(a, 0.05), mean_difference(b, a, 0.05)
    assert one is not None
    assert difference is not None
    assert (one.value, one.low, one.high) == pytest.approx(
        (2.0, 2 - 1.959964, 2 + 1.959964), abs=1e-6
    )
    assert (difference.value, difference.high) == pytest.approx(
        (0.0, 1.959964 * (7 / 3) ** 0.5), abs=1e-6
    )
    assert mean(np.array([1.0]), 0.05) is None


def test_the_number_of_users_that_a_difference_needs() -> None:
    """A tenth above 10%, power 0.8: both shares about 0.105, so 2 * (1.96 + 0.84)^2 * 0.105 * 0.895
    / 0.01^2, and a little less.
    """
    assert needed(0.1, 0.1, 0.05) == 14_751
    assert needed(0.0, 0.1, 0.05) is None
    assert needed(1.0, 0.1, 0.05) is None


def test_the_balance_of_user_numbers_and_weights() -> None:
    """60 and 40 where 50 and 50 are expected: 100/50 + 100/50 = 4, at one degree of freedom
    0.0455.
    """
    assert balance([60, 40], [1, 1]) == pytest.approx(0.0455, abs=1e-4)
    assert balance([60, 40], [3, 2]) == pytest.approx(1.0)
    assert balance([3, 2], [1, 1]) is None


def test_one_in_twenty_intervals_of_equal_means_excludes_zero() -> None:
    """Weights with a few large ones."""
    rng = np.random.default_rng(SEED)
    wrong = 0
    for _ in range(1000):
        a, b = (
            np.where(rng.random(2000) < 0.1, rng.choice([1.0, 3.0, 8.0], 2000), 0.0)
            for _ in range(2)
        )
        difference = mean_difference(a, b, 0.05)
        assert difference is not None
        wrong += not difference.low <= 0 <= difference.high
    assert 30 <= wrong <= 70
