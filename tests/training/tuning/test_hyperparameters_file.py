"""Retrains and evaluations use the hyperparameters in the file that `tune` wrote."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from core.errors import ConfigurationError
from core.settings import Settings
from models.registry import Registry
from models.two_tower import TwoTowerModel
from training import als, commands
from training.als import Hyperparameters
from training.job.retrain import Options, retrain
from training.tuning import command as tune
from training.two_tower import hyperparameters as two_tower
from training.two_tower.command import fit_two_tower


def test_a_retrain_uses_the_hyperparameters_of_the_file(small: Settings, folder: Path) -> None:
    path = folder / "hyperparameters.json"
    values = {"factors": 5, "alpha": 2.0, "iterations": 3, "popularity_discount": 0.25}
    tune.add(path, "als", {"als": values, "tuned": {}})
    values = {"dimension": 12, "layers": 1, "epochs": 1}
    tune.add(path, "two-tower", {"two_tower": values, "tuned": {}})
    options = Options(items=folder / "items.jsonl", hyperparameters=path, threads=1)
    version = retrain(small, options, Console(file=io.StringIO()))
    registry = Registry(small.models_path)
    assert registry.load_part(version, "als").confidence.discount == 0.25, (
        "serving folds in with the discount of the fit"
    )
    settings = registry.manifest(version).settings
    assert settings["als"] == {
        "factors": 5,
        "regularization": 0.01,
        "alpha": 2.0,
        "iterations": 3,
        "popularity_discount": 0.25,
    }
    used = settings["two_tower"]
    assert (used["dimension"], used["layers"], used["epochs"]) == (12, 1, 1)
    assert used["history"] == small.two_tower_history


def test_an_evaluation_and_a_fit_use_the_hyperparameters_of_the_file(
    small: Settings, folder: Path
) -> None:
    path, items, data = folder / "hyperparameters.json", folder / "items.jsonl", folder / "dataset"
    tune.add(path, "two-tower", {"two_tower": {"epochs": 1}, "tuned": {}})
    options = commands.EvaluationOptions(data, items, path, 20, 1, folder / "evaluation")
    commands.evaluate_dataset(small, options, Console(file=io.StringIO()))
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text("utf-8"))
    assert len(metrics["two_tower"]) == 1
    assert small.two_tower_epochs == 2
    fit_two_tower(small, data, items, None, folder / "configured", 1)
    tune.add(path, "two-tower", {"two_tower": {"epochs": 1, "dimension": 12}, "tuned": {}})
    fit_two_tower(small, data, items, path, folder / "tuned", 1)
    dimensions = [TwoTowerModel.load(folder / name).dimension for name in ("configured", "tuned")]
    assert dimensions == [8, 12]


def test_a_model_without_a_section_in_the_file_uses_the_settings(
    small: Settings, folder: Path
) -> None:
    path = folder / "hyperparameters.json"
    section = {"dimension": 12, "dropout": 0.3}
    tune.add(path, "two-tower", {"two_tower": section, "tuned": {"value": 0.1}})
    assert als.hyperparameters(small, path) == als.hyperparameters(small)
    tuned = two_tower.hyperparameters(small, path)
    assert (tuned.dimension, tuned.dropout, tuned.epochs) == (12, 0.3, small.two_tower_epochs)
    tune.add(path, "als", {"als": {"factors": 7}, "tuned": {"value": 0.2}})
    assert als.hyperparameters(small, path) == Hyperparameters(factors=7)
    assert json.loads(path.read_text("utf-8")) == {
        "two_tower": section,
        "als": {"factors": 7},
        "tuned": {"two-tower": {"value": 0.1}, "als": {"value": 0.2}},
    }
    assert two_tower.hyperparameters(small).epochs == small.two_tower_epochs


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
def test_an_invalid_file_raises_an_error_that_names_it(
    small: Settings, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, "utf-8")
    with pytest.raises(
        ConfigurationError, match=r"bad\.json holds no hyperparameters of Two-Tower"
    ):
        two_tower.hyperparameters(small, path)
