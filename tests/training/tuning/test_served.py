"""The users who choose the thresholds are in no model, and a choice needs users and time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.settings import Settings
from engines.recommender import Recommender
from tests.training.tuning.run import USERS, tune_part
from training.blend import choice as blend
from training.data.dataset import Dataset
from training.tuning import router_measurements
from training.tuning import served as tune_served
from training.tuning.options import Part
from training.tuning.router_measurements import Measurements
from training.two_tower import command as two_tower_command
from training.two_tower.fit_types import FitOptions, TrainingData


@dataclass
class Calls:
    """The arguments with which one run of `tune` measured, fitted Two-Tower and chose a blend."""

    recommender: Recommender
    dataset: Dataset
    threshold_users: Any
    fit_data: TrainingData
    fit_options: FitOptions
    excluded_from_blend: Any


@pytest.fixture
def calls(small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    measure, fit, choose = router_measurements.measure, two_tower_command.fit, blend.choose
    arguments: dict[str, Any] = {}

    def record_measure(
        recommender: Recommender, dataset: Dataset, users: Any, *more: Any
    ) -> Measurements:
        arguments.update(recommender=recommender, dataset=dataset, threshold_users=users)
        return measure(recommender, dataset, users, *more)

    def record_fit(data: TrainingData, *more: Any) -> Any:
        arguments.update(fit_data=data, fit_options=more[2])
        return fit(data, *more)

    def record_choose(bundle: Any, inputs: Any, excluded: Any, seed: int) -> Any:
        arguments.update(excluded_from_blend=excluded)
        return choose(bundle, inputs, excluded, seed)

    monkeypatch.setattr(router_measurements, "measure", record_measure)
    monkeypatch.setattr(two_tower_command, "fit", record_fit)
    monkeypatch.setattr(blend, "choose", record_choose)
    unlimited = small.model_copy(update={"two_tower_seconds": 1e6})
    sections, printed = tune_part(unlimited, folder, Part.ROUTER, minutes=60.0)
    assert set(sections) == {"router", "tuned"}, "the file has the tuned part alone"
    assert sections["tuned"]["router"]["no_ensemble"] is None, printed
    return Calls(**arguments)


def test_the_users_who_choose_the_thresholds_are_in_no_model(calls: Calls) -> None:
    left_out = {calls.dataset.users.ids[user] for user in calls.threshold_users}
    assert len(left_out) == USERS // 5
    als = calls.recommender.bundle.als
    assert als is not None
    assert als.user_ids is not None
    assert not left_out & set(als.user_ids.ids)
    assert len(als.user_ids) == USERS - len(left_out)
    fitted_users = calls.dataset.user[calls.fit_data.where]
    assert not np.isin(fitted_users, calls.threshold_users).any()
    assert calls.excluded_from_blend.tolist() == calls.threshold_users.tolist(), (
        "they do not choose the blend either"
    )


def test_the_fit_of_two_tower_leaves_time_for_the_thresholds(calls: Calls) -> None:
    assert calls.fit_options.seconds == pytest.approx(60 * 60 * tune_served.FIT_SHARE, rel=0.01)


def test_too_few_users_are_reported_before_any_fit(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_measurements, "LEAST_USERS", USERS)
    monkeypatch.setattr("training.job.fitting.fit_als", None)
    sections, printed = tune_part(small, folder, Part.ROUTER)
    assert sections == {}
    assert f"a fifth of the users is {USERS // 5}, at least {USERS} are needed" in printed


def test_too_little_time_leaves_the_thresholds_as_configured(small: Settings, folder: Path) -> None:
    disabled = small.model_copy(update={"enable_two_tower": False})
    sections, printed = tune_part(disabled, folder, Part.ROUTER, minutes=0.0)
    assert sections == {}
    assert "Router: nothing changes, the thresholds were evaluated for 0 users only" in printed
