"""`python -m engines`, as a newcomer types it: nothing runs but the command."""

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
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60)


def test_recommend_by_als_from_a_history(models: Path) -> None:
    done = engines("recommend", "--engine", "als", "--history", "bank,coin", "--limit", "1", "--json", models=models)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["method_used"] == "als"
    assert [line["item_id"] for line in answer["recommendations"]] == ["pay"]
    assert answer["model_version"] == Registry(models).current()


def test_a_person_sees_a_table_with_reasons(models: Path) -> None:
    done = engines("recommend", "--interests", "fintech,payments", models=models)
    assert done.returncode == 0, done.stderr
    assert "Payflow" in done.stdout
    assert "matches your" in done.stdout


def test_a_missing_part_says_so_and_the_rest_works(models: Path) -> None:
    live = models / str(Registry(models).current())
    (live / "als" / "item_factors.npy").write_bytes(b"broken")
    done = engines("recommend", "--engine", "als", "--history", "pay", "--bundle", str(live), models=models)
    assert done.returncode == 0, done.stderr
    assert "missing part als" in done.stdout
    assert "content_based" in done.stdout


def test_similar_and_explain(models: Path) -> None:
    found = json.loads(engines("similar", "pay", "--json", models=models).stdout)
    assert found["recommendations"][0]["item_id"] == "bank"
    found = json.loads(engines("explain", "care", "--history", "pay", "--json", models=models).stdout)
    assert found["removed_by"] == ["it is not available"]
    assert "not shown: it is not available" in engines("explain", "care", "--history", "pay", models=models).stdout


def test_filters_diversity_and_exploration_as_over_the_api(models: Path) -> None:
    def ids(*arguments: str) -> list[str]:
        done = engines("recommend", "--history", "pay,bank", "--json", *arguments, models=models)
        assert done.returncode == 0, done.stderr
        return [line["item_id"] for line in json.loads(done.stdout)["recommendations"]]

    usual = ids()
    assert "care" not in usual, "it is not available"
    assert not {"pay", "bank"} & set(usual)
    assert ids("--exclude", usual[0]) == usual[1:]
    assert set(ids("--include-seen", "--no-available-only")) == {*usual, "pay", "bank", "care"}
    assert set(ids("--category", "health")) < set(usual)
    assert ids("--item-type", "nothing of the kind") == []
    assert sorted(ids("--diversity", "1")) == sorted(usual)
    assert ids("--diversity", "1") != usual
    done = engines("recommend", "--history", "pay,bank", "--explore", "0.5", "--limit", "4", models=models)
    assert "exploration" in done.stdout
    assert "drawn with a probability of" in done.stdout


def test_explain_shows_a_person_the_items_and_attributes_behind_each_score(models: Path) -> None:
    done = engines("explain", "medpay", "--history", "pay,pill", "--diversity", "0.5", models=models)
    assert done.returncode == 0, done.stderr
    for heading in ("normalised", "weight", "your items", "attributes"):
        assert heading in done.stdout
    assert any("content_based" in line and "pay" in line and "fintech" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "--version", "nope"], "no version 'nope'"),
        (["recommend", "--bundle", "nowhere"], "nowhere/manifest.json does not exist"),
        (["recommend", "--use-case", "nope"], "there is no use case 'nope'; configured: developer_startup"),
        (["recommend", "--event-type", "nope"], "there is no event type 'nope'"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, models: Path) -> None:
    done = engines(*arguments, models=models)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
