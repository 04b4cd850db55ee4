"""`python -m engines`: works with a bundle alone, without Kafka and Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import files
from models.bundle import CATALOGUE
from models.registry import Registry
from tests.engines import world


@pytest.fixture
def models(tmp_path: Path) -> Path:
    parts = world.bundle()

    def write(folder: Path) -> None:
        files.write_json(folder / CATALOGUE, parts.catalogue)
        for name, part in parts.parts.items():
            part.save(folder / name)

    Registry(tmp_path).publish(write)
    return tmp_path


def engines(*arguments: str, models: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    nowhere = {"REDIS_URL": "redis://127.0.0.1:1", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    command = [sys.executable, "-m", "engines", *arguments]
    environment = {**os.environ, **nowhere, "MODELS_PATH": str(models)}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=60
    )


def test_recommend_by_als_from_a_history(models: Path) -> None:
    process = engines(
        "recommend",
        "--engine",
        "als",
        "--history",
        "bank,coin",
        "--limit",
        "1",
        "--json",
        models=models,
    )
    assert process.returncode == 0, process.stderr
    answer = json.loads(process.stdout)
    assert answer["method_used"] == "als"
    assert [line["item_id"] for line in answer["recommendations"]] == ["pay"]
    assert answer["model_version"] == Registry(models).current()


def test_the_default_output_is_a_table_with_reasons(models: Path) -> None:
    process = engines("recommend", "--interests", "fintech,payments", models=models)
    assert process.returncode == 0, process.stderr
    assert "Payflow" in process.stdout
    assert "matches your" in process.stdout


def test_a_damaged_part_is_reported_and_the_other_engines_answer(models: Path) -> None:
    live = models / str(Registry(models).current())
    (live / "als" / "item_factors.npy").write_bytes(b"broken")
    process = engines(
        "recommend", "--engine", "als", "--history", "pay", "--bundle", str(live), models=models
    )
    assert process.returncode == 0, process.stderr
    assert "missing part als" in process.stdout
    assert "content_based" in process.stdout


def test_similar_and_explain(models: Path) -> None:
    output = json.loads(engines("similar", "pay", "--json", models=models).stdout)
    assert output["recommendations"][0]["item_id"] == "bank"
    output = json.loads(
        engines("explain", "care", "--history", "pay", "--json", models=models).stdout
    )
    assert output["removed_by"] == ["it is not available"]
    assert (
        "not shown: it is not available"
        in engines("explain", "care", "--history", "pay", models=models).stdout
    )


def test_options_for_filters_diversity_and_exploration(models: Path) -> None:
    def ids(*arguments: str) -> list[str]:
        process = engines("recommend", "--history", "pay,bank", "--json", *arguments, models=models)
        assert process.returncode == 0, process.stderr
        return [line["item_id"] for line in json.loads(process.stdout)["recommendations"]]

    default = ids()
    assert "care" not in default, "it is not available"
    assert not {"pay", "bank"} & set(default)
    assert ids("--exclude", default[0]) == default[1:]
    assert set(ids("--include-seen", "--no-available-only")) == {*default, "pay", "bank", "care"}
    assert set(ids("--category", "health")) < set(default)
    assert ids("--item-type", "nothing of the kind") == []
    assert sorted(ids("--diversity", "1")) == sorted(default)
    assert ids("--diversity", "1") != default
    explore = ("--explore", "0.5", "--limit", "4", "--wide")
    process = engines("recommend", "--history", "pay,bank", *explore, models=models)
    assert "exploration" in process.stdout
    assert "drawn with a probability of" in process.stdout


def test_explain_shows_the_items_and_attributes_of_each_contribution(models: Path) -> None:
    process = engines(
        "explain", "medpay", "--history", "pay,pill", "--diversity", "0.5", models=models
    )
    assert process.returncode == 0, process.stderr
    for heading in ("normalised", "weight", "your items", "attributes"):
        assert heading in process.stdout
    assert any(
        "content_based" in line and "pay" in line and "fintech" in line
        for line in process.stdout.splitlines()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "--version", "nope"], "no version 'nope'"),
        (["recommend", "--bundle", "nowhere"], "nowhere/manifest.json does not exist"),
        (
            ["recommend", "--use-case", "nope"],
            "there is no use case 'nope'; configured: developer_startup",
        ),
        (["recommend", "--event-type", "nope"], "there is no event type 'nope'"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], message: str, models: Path) -> None:
    process = engines(*arguments, models=models)
    assert process.returncode == 1
    assert message in process.stderr
    assert len(process.stderr.splitlines()) == 1
