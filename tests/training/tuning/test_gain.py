"""The gain of a search is that of users who did not choose."""

from __future__ import annotations

import numpy as np
import pytest

from training.tuning import gain


def test_the_best_of_many_trials_that_differ_by_chance_gains_nothing() -> None:
    rng = np.random.default_rng(3)
    looks, gains, covered = [], [], 0
    for seed in range(40):
        trials = {number: (rng.random(400) < 0.1).astype(float) for number in range(60)}
        looks.append(max(row.mean() for row in trials.values()) - trials[0].mean())
        measured = gain.cross_fitted(trials, 0, seed)
        assert measured is not None
        gains.append(measured[0])
        covered += measured[1] <= 0 <= measured[2]
    assert np.mean(looks) > 0.03, "the best of 60 looks much better than the first"
    assert abs(np.mean(gains)) < 0.01
    assert covered >= 36, "the interval of 95% covers the truth"


def test_a_better_trial_gains_what_it_is_better_by() -> None:
    start = np.tile([0.0, 1.0], 100)
    measured = gain.cross_fitted({4: start + 0.25, 0: start, 7: start - 0.5}, 0, seed=1)
    assert measured == pytest.approx([0.25, 0.25, 0.25])


def test_nothing_is_better_than_the_start() -> None:
    start = np.tile([0.0, 1.0], 100)
    assert gain.cross_fitted({0: start, 1: start, 2: start - 0.5}, 0, seed=1) == [0, 0, 0]


def test_without_the_start_or_with_few_users_there_is_no_gain() -> None:
    row = np.ones(gain.LEAST_USERS)
    assert gain.cross_fitted({1: row}, 0, seed=1) is None
    assert gain.cross_fitted({0: row[1:], 1: row[1:]}, 0, seed=1) is None
    assert gain.cross_fitted({0: row, 1: row}, 0, seed=1) == [0, 0, 0]
