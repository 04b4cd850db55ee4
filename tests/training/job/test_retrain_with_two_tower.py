"""A retrain with Two-Tower publishes a model that serves without torch and can be judged later."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from core.settings import Settings
from core.types import Item, Request
from engines.builder import build, with_catalogue
from models.registry import Registry
from testing.process import ROOT, settings_environment
from tests.engines import world as people
from tests.training import world
from training.job import gate
from training.job.retrain import Options, retrain


@pytest.fixture
def both(trainer: Settings) -> Settings:
    return trainer.model_copy(
        update={
            "enable_two_tower": True,
            "two_tower_dimension": 8,
            "two_tower_epochs": 3,
            "two_tower_history": 10,
        }
    )


def published(settings: Settings) -> str:
    return retrain(settings, Options(), Console(file=io.StringIO()))


def test_a_retrain_publishes_two_tower_and_the_ensemble_answers_hot_users(both: Settings) -> None:
    version = published(both)
    registry = Registry(both.models_path)
    manifest = registry.manifest(version)
    assert "two_tower" in manifest.parts
    assert manifest.settings["two_tower"]["dimension"] == 8
    assert {"als", "two_tower", "ensemble", "routed"} <= set(manifest.metrics["headline"])
    assert manifest.libraries["torch"]
    recommender = build(registry.load(), settings=both)
    state = people.user(*(f"i{number}" for number in range(0, 40, 2)), events=25)
    assert recommender.recommend(state, Request(limit=3)).method_used == "ensemble"
    new = Item(item_id="new", item_type="startup", categories=["even"])
    grown = with_catalogue(recommender, recommender.catalogue.updated([new]))
    answer = grown.recommend(state, Request(limit=100, engine="two_tower"))
    assert "new" in [line.item_id for line in answer.recommendations if line.method == "two_tower"]


def test_the_next_gate_evaluates_the_model_fitted_before_the_cut(
    both: Settings,
) -> None:
    first = published(both)
    assert (both.models_path / first / gate.JUDGED_TWO_TOWER / "two_tower.json").is_file()
    verdict = Registry(both.models_path).manifest(published(both)).gate
    assert verdict["live"] == first
    # the same events and seeds make the same model
    assert verdict["difference"] == [0.0, 0.0]


def test_a_disabled_two_tower_is_not_in_the_bundle(trainer: Settings) -> None:
    manifest = Registry(trainer.models_path).manifest(published(trainer))
    assert "two_tower" not in manifest.parts
    assert "torch" not in manifest.libraries


def test_the_command_fits_a_dataset_and_serving_its_model_needs_no_torch(
    both: Settings, tmp_path: Path
) -> None:
    environment = settings_environment(both)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    entries = world.write_items(tmp_path / "items.jsonl")
    run("-m", "training", "dataset", "--output", str(tmp_path / "dataset"))
    output = tmp_path / "two_tower"
    run(
        "-m",
        "training",
        "two-tower",
        "--dataset",
        str(tmp_path / "dataset"),
        "--items",
        str(entries),
        "--output",
        str(output),
    )
    assert not list(output.glob("*checkpoint*"))
    served = run(
        "-c",
        "import sys; from pathlib import Path; from models.two_tower import TwoTowerModel;"
        f"import engines.recommender; "
        f"print(len(TwoTowerModel.load(Path({str(output)!r})).item_ids), 'torch' in "
        f"sys.modules)",
    )
    assert served.split() == [str(world.ITEMS), "False"]
