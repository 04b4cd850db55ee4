"""`python -m training tune`: its parts share one file and one budget, and what they find is what a
retrain uses.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from rich.console import Console

from core.errors import ConfigurationError
from core.settings import Settings
from engines.recommender import Recommender
from models.registry import Registry
from models.two_tower import TwoTowerModel
from store.state.apply import deletions
from tests.training import world
from training import als, commands
from training.als import Hyperparameters
from training.blend import grid as blend
from training.data import dataset_files
from training.data.dataset import Dataset
from training.job.retrain import Options, retrain
from training.tuning import als as tune_als
from training.tuning import command as tune
from training.tuning import router as tune_router
from training.tuning import served as tune_served
from training.tuning import two_tower as tune_two_tower
from training.tuning.command import Part
from training.tuning.router import Measurements
from training.tuning.study import TuneOptions
from training.two_tower import command as two_tower_command
from training.two_tower import fit as two_tower

PEOPLE = 240


@pytest.fixture
def small(settings: Settings) -> Settings:
    more = {
        "enable_two_tower": True,
        "two_tower_dimension": 8,
        "two_tower_epochs": 2,
        "two_tower_history": 10,
    }
    als_small = {
        "als_factors": 16,
        "als_regularization": 5.0,
        "als_alpha": 2.0,
        "als_iterations": 6,
        "holdout_fraction": 0.25,
    }
    return settings.model_copy(update={**more, **als_small})


@pytest.fixture
def folder(small: Settings, redis: Redis, tmp_path: Path) -> Path:
    world.archived(small, world.parity(users=PEOPLE))
    deletions.mark_ready(redis)
    commands.make_dataset(small, tmp_path / "dataset", None, Console(file=io.StringIO()))
    world.write_items(tmp_path / "items.jsonl")
    return tmp_path


def tuned(
    settings: Settings, folder: Path, part: Part, minutes: float = 60.0, trials: int = 1
) -> tuple[dict[str, Any], str]:
    """The contents of the output file, and of the terminal."""
    shown, output = Console(file=io.StringIO(), width=200), folder / "found.json"
    study, entries = folder / "study.sqlite", folder / "items.jsonl"
    options = TuneOptions(study, output, minutes, trials, threads=1)
    commands.tune(settings, part, folder / "dataset", entries, options, shown)
    told = shown.file.getvalue()  # type: ignore[attr-defined]
    return json.loads(output.read_text("utf-8")) if output.exists() else {}, told


def test_all_parts_are_tuned_into_one_file(small: Settings, folder: Path) -> None:
    found, told = tuned(small, folder, Part.ALL)
    assert set(found) == {"als", "two_tower", "blend", "router", "tuned"}
    assert set(found["tuned"]) == {"als", "two-tower", "blend", "router"}
    assert set(found["blend"]["weights"]) <= {"als", "two_tower", "content_based"}
    assert found["tuned"]["router"]["verdict"] in told.replace("\n", " ")
    assert found["tuned"]["router"]["users"] == PEOPLE // 5
    again, _ = tuned(small, folder, Part.TWO_TOWER)
    assert again["tuned"]["two-tower"]["trials"] == 2, "it went on"
    assert {name: again[name] for name in ("als", "blend", "router")} == {
        name: found[name] for name in ("als", "blend", "router")
    }


def test_a_retrain_fits_by_what_was_found(small: Settings, folder: Path) -> None:
    found = folder / "found.json"
    tune.add(
        found,
        "als",
        {
            "als": {"factors": 5, "alpha": 2.0, "iterations": 3, "popularity_discount": 0.25},
            "tuned": {},
        },
    )
    tune.add(
        found, "two-tower", {"two_tower": {"dimension": 12, "layers": 1, "epochs": 1}, "tuned": {}}
    )
    options = Options(items=folder / "items.jsonl", hyperparameters=found, threads=1)
    version = retrain(small, options, Console(file=io.StringIO()))
    used = Registry(small.models_path).manifest(version).settings
    assert Registry(small.models_path).load_part(version, "als").confidence.discount == 0.25, (
        "what serves folds in as the fit did"
    )
    assert used["als"] == {
        "factors": 5,
        "regularization": 0.01,
        "alpha": 2.0,
        "iterations": 3,
        "popularity_discount": 0.25,
    }
    assert (
        used["two_tower"]["dimension"],
        used["two_tower"]["layers"],
        used["two_tower"]["epochs"],
    ) == (12, 1, 1)
    assert used["two_tower"]["history"] == small.two_tower_history


def test_an_evaluation_fits_by_what_was_found(small: Settings, folder: Path) -> None:
    found = folder / "found.json"
    tune.add(found, "two-tower", {"two_tower": {"epochs": 1}, "tuned": {}})
    entries, console = folder / "items.jsonl", Console(file=io.StringIO())
    commands.evaluate_dataset(
        small, folder / "dataset", entries, found, 20, 1, folder / "judged", console
    )
    assert (
        len(json.loads((folder / "judged" / "metrics.json").read_text("utf-8"))["two_tower"]) == 1
    )
    assert small.two_tower_epochs == 2
    fit_two_tower = two_tower_command.fit_two_tower
    fit_two_tower(small, folder / "dataset", entries, None, folder / "plain", 1)
    tune.add(found, "two-tower", {"two_tower": {"epochs": 1, "dimension": 12}, "tuned": {}})
    fit_two_tower(small, folder / "dataset", entries, found, folder / "chosen", 1)
    assert [TwoTowerModel.load(folder / name).dimension for name in ("plain", "chosen")] == [8, 12]


def test_the_users_who_choose_the_thresholds_are_in_no_model(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, calls = tune_router.measure, []

    def record_measure(
        recommender: Recommender, data: Dataset, users: Any, *more: Any
    ) -> Measurements:
        calls.append((recommender, data, users))
        return measure(recommender, data, users, *more)

    fitted: list[Any] = []
    fit = two_tower_command.fit

    def fit_and_tell(
        data: Dataset, entries: Any, settings: Settings, *, where: Any, **more: Any
    ) -> Any:
        fitted.append((where, settings.two_tower_seconds))
        return fit(data, entries, settings, where=where, **more)

    apart: list[Any] = []
    choose = blend.choose

    def choose_and_tell(*given: Any) -> Any:
        apart.append(given[2])
        return choose(*given)

    monkeypatch.setattr(tune_router, "measure", record_measure)
    monkeypatch.setattr(two_tower_command, "fit", fit_and_tell)
    monkeypatch.setattr(blend, "choose", choose_and_tell)
    found, told = tuned(
        small.model_copy(update={"two_tower_seconds": 1e6}), folder, Part.ROUTER, minutes=60.0
    )
    assert set(found) == {"router", "tuned"}, "only what was asked for is written"
    [(recommender, data, users)] = calls
    assert recommender.bundle.als is not None
    assert recommender.bundle.als.user_ids is not None
    left_out = {data.users.ids[user] for user in users}
    assert len(left_out) == PEOPLE // 5
    assert not left_out & set(recommender.bundle.als.user_ids.ids)
    assert len(recommender.bundle.als.user_ids) == PEOPLE - len(left_out)
    [(where, seconds)] = fitted
    assert not np.isin(data.user[where], users).any()
    assert seconds == pytest.approx(60 * 60 * tune_served.FIT_SHARE, rel=0.01), (
        "the rest of the time is for asking"
    )
    assert [each.tolist() for each in apart] == [users.tolist()], "nor do they choose the blend"
    assert found["tuned"]["router"]["no_ensemble"] is None, told


def test_a_part_goes_by_what_was_tuned_before_it(small: Settings, folder: Path) -> None:
    output = folder / "found.json"
    configured = als.hyperparameters(small)
    tune.add(
        output,
        "two-tower",
        {"two_tower": {"dimension": 12, "dropout": 0.3}, "tuned": {"value": 0.1}},
    )
    assert als.hyperparameters(small, output) == configured, (
        "ALS was not tuned, so the settings say"
    )
    there = two_tower.hyperparameters(two_tower_command.tuned(small, output))
    assert (there.dimension, there.dropout, there.epochs) == (12, 0.3, small.two_tower_epochs)
    tune.add(output, "als", {"als": {"factors": 7}, "tuned": {"value": 0.2}})
    assert als.hyperparameters(small, output) == Hyperparameters(factors=7)
    assert json.loads(output.read_text("utf-8")) == {
        "two_tower": {"dimension": 12, "dropout": 0.3},
        "als": {"factors": 7},
        "tuned": {"two-tower": {"value": 0.1}, "als": {"value": 0.2}},
    }
    assert two_tower_command.tuned(small, None) is small


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "no",
        '{"two_tower": 3}',
        '{"two_tower": {"dropout": 1.5}}',
        '{"two_tower": {"layers": "many"}}',
    ],
)
def test_a_file_that_is_no_good_is_named(small: Settings, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text, "utf-8")
    with pytest.raises(
        ConfigurationError, match=r"bad\.json holds no hyperparameters of Two-Tower"
    ):
        two_tower_command.tuned(small, tmp_path / "bad.json")


def test_what_else_lies_in_the_way_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "letter.json").write_text("Dear Ann", "utf-8")
    with pytest.raises(ConfigurationError, match="no file of `tune`"):
        tune.add(tmp_path / "letter.json", "als", {"als": {}, "tuned": {}})
    assert (tmp_path / "letter.json").read_text("utf-8") == "Dear Ann"


def test_the_budget_is_shared_and_what_a_part_leaves_goes_to_the_next(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes: dict[str, float] = {}

    def record_minutes(name: str, sections: Mapping[str, Any]) -> Any:
        def part(*arguments: Any) -> Mapping[str, Any]:
            [options] = [argument for argument in arguments if isinstance(argument, TuneOptions)]
            minutes[name] = options.minutes
            return sections

        return part

    nothing = {"tuned": {}}
    monkeypatch.setattr(tune_als, "search", record_minutes("als", nothing))
    monkeypatch.setattr(tune_als, "report", lambda *_: None)
    monkeypatch.setattr(tune_two_tower, "search", record_minutes("two-tower", nothing))
    monkeypatch.setattr(tune_two_tower, "report", lambda *_: None)
    monkeypatch.setattr(tune_served, "choose", record_minutes("served", {}))
    tuned(small, folder, Part.ALL, minutes=100)
    assert minutes["als"] == pytest.approx(20, abs=1)
    assert minutes["two-tower"] == pytest.approx(62.5, abs=1), (
        "five eighths of the 100 minutes that ALS left"
    )
    assert minutes["served"] == pytest.approx(100, abs=1)
    minutes.clear()
    tuned(small, folder, Part.ROUTER, minutes=7)
    assert minutes == {"served": pytest.approx(7, abs=1)}


def test_without_two_tower_the_rest_is_tuned(small: Settings, folder: Path) -> None:
    without = small.model_copy(update={"enable_two_tower": False})
    with pytest.raises(
        ConfigurationError, match="Two-Tower cannot be tuned: disabled by ENABLE_TWO_TOWER=false"
    ):
        tuned(without, folder, Part.TWO_TOWER)
    found, told = tuned(without, folder, Part.ALL)
    assert set(found) == {"als", "router", "tuned"}
    assert "Two-Tower is skipped: disabled by ENABLE_TWO_TOWER=false." in told
    assert "Blend: nothing changes, there is no Two-Tower to blend" in told
    assert found["router"]["warm_user_threshold"] == small.warm_user_threshold


def test_a_killed_search_of_als_goes_on_and_the_configured_ones_come_first(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, fit, seen = dataset_files.load(folder / "dataset"), als.fit, list[Hyperparameters]()

    def fit_or_exit(
        interactions: Any, hyperparameters: Hyperparameters, *more: Any, **named: Any
    ) -> Any:
        seen.append(hyperparameters)
        if len(seen) == 2:
            raise SystemExit  # which Optuna, as with a kill, does not hear of
        return fit(interactions, hyperparameters, *more, **named)

    def search(settings: Settings, trials: int) -> dict[str, Any]:
        options = TuneOptions(
            folder / "als.sqlite", folder / "found.json", minutes=60.0, trials=trials, threads=1
        )
        return tune_als.search(data, settings, options)["tuned"]

    monkeypatch.setattr(als, "fit", fit_or_exit)
    with pytest.raises(SystemExit):
        search(small, 3)
    found = search(small, tune_als.SOBOL_TRIALS)
    assert (seen[0].factors, seen[0].regularization, seen[0].alpha) == (16, 5.0, 2.0)
    assert found["configured"]["factors"] == 16
    assert seen[1] in seen[2:], "what the killed one tried is tried again"
    assert found["trials"] == tune_als.SOBOL_TRIALS + 2, "the killed one counts as failed"
    other = search(small.model_copy(update={"als_alpha": 3.0}), 1)
    assert seen[-1].alpha == pytest.approx(3.0), "what is configured now is tried, too"
    assert other["configured"]["alpha"] == pytest.approx(3.0)
    assert other["ranges"]["factors"] == (16, 256)


def test_more_factors_than_the_range_has_widen_it(small: Settings, folder: Path) -> None:
    data = dataset_files.load(folder / "dataset")
    wide = small.model_copy(update={"als_factors": 300, "als_iterations": 2})
    options = TuneOptions(
        folder / "wide.sqlite", folder / "found.json", minutes=0.05, trials=1, threads=1
    )
    found = tune_als.search(data, wide, options)
    assert found["tuned"]["ranges"]["factors"] == (16, 300)
    assert found["als"]["factors"] == 300, "what is configured is tried first"


def test_too_few_users_are_told_before_anything_is_fitted(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_router, "LEAST_USERS", PEOPLE)
    monkeypatch.setattr(tune_served, "_fit", None)
    found, told = tuned(small, folder, Part.ROUTER)
    assert found == {}
    assert f"a fifth of the users is {PEOPLE // 5}, at least {PEOPLE} are needed" in told.replace(
        "\n", " "
    )


def test_too_little_time_leaves_the_thresholds_and_says_so(small: Settings, folder: Path) -> None:
    found, told = tuned(
        small.model_copy(update={"enable_two_tower": False}), folder, Part.ROUTER, minutes=0.0
    )
    assert found == {}
    assert (
        "Router: nothing changes, the thresholds were evaluated for 0 users only"
        in told.replace("\n", " ")
    )
