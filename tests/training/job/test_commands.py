"""The commands of `python -m training` run a whole pipeline, and show published bundles."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

from redis import Redis
from rich.console import Console

from core.settings import Settings
from models.als import ALSModel
from models.registry import Registry
from testing.process import ROOT
from tests.training import world
from tests.training.job.run import environment, published, run
from training import commands, model_commands
from training.tuning.options import Part, TuneOptions


def test_old_bundles_are_pruned_and_commands_show_the_others(
    trainer: Settings, redis: Redis
) -> None:
    few = trainer.model_copy(update={"keep_bundles": 2})
    versions = [published(few) for _ in range(3)]
    assert Registry(few.models_path).versions() == versions[1:]
    console = Console(file=io.StringIO(), width=200)
    model_commands.list_models(few, False, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("accepted") == 2
    assert versions[2] in shown
    assert "live" in shown
    listed = json.loads(run(few, "models", "list", "--json").stdout)
    assert [(bundle["version"], bundle["live"]) for bundle in listed] == [
        (versions[2], True),
        (versions[1], False),
    ]
    assert set(listed[0]["metrics"]) == {"popular", "content_based", "als", "routed"}
    assert (
        json.loads(run(few, "models", "diff", *versions[1:], "--json").stdout)["version"]
        == versions[1:]
    )
    model_commands.diff_models(few, *versions[1:], False, console)
    assert "created" in console.file.getvalue()  # type: ignore[attr-defined]
    assert json.loads(run(few, "models", "show").stdout)["version"] == versions[2]
    model_commands.promote_model(few, versions[1])
    assert Registry(few.models_path).current() == versions[1]
    missing = run(few, "models", "promote", versions[0])
    assert missing.returncode == 1
    assert "has no version" in missing.stderr


def test_the_commands_of_single_steps_work_in_sequence(trainer: Settings, tmp_path: Path) -> None:
    folder, study = tmp_path / "dataset", tmp_path / "study.sqlite"
    output = tmp_path / "hyperparameters.json"
    console = Console(file=io.StringIO(), width=200)
    commands.make_dataset(trainer, folder, None, console)
    commands.fit_als(trainer, folder, tmp_path / "als", None, 1)
    assert ALSModel.load(tmp_path / "als").factors == 4
    assert Registry(trainer.models_path).current() is None, "nothing is published"
    entries = world.write_items(tmp_path / "items.jsonl")
    options = commands.EvaluationOptions(
        folder, entries, users=500, threads=1, output=tmp_path / "evaluation"
    )
    commands.evaluate_dataset(trainer, options, console)
    rows = json.loads((tmp_path / "evaluation" / "metrics.json").read_text("utf-8"))["rows"]
    assert {row["engine"] for row in rows} == {"popular", "content_based", "als", "routed"}
    commands.tune(
        trainer, Part.ALS, folder, None, TuneOptions(study, output, 1.0, 3, threads=1), console
    )
    assert json.loads(output.read_text("utf-8"))["tuned"]["als"]["trials"] == 3
    commands.tune(
        trainer, Part.ALS, folder, None, TuneOptions(study, output, 1.0, 2, threads=1), console
    )
    about = json.loads(output.read_text("utf-8"))
    tuned = about["tuned"]["als"]
    assert tuned["trials"] == 5, "the second run continues the search"
    assert tuned["value"] >= tuned["configured"]["value"], "the configured ones are tried, too"
    version = published(trainer, hyperparameters=output)
    assert Registry(trainer.models_path).manifest(version).settings["als"] == about["als"]


def test_the_help_lists_every_command(trainer: Settings) -> None:
    shown = run(trainer, "--help").stdout
    for name in ("dataset", "als", "evaluate", "retrain", "worker", "request", "tune", "models"):
        assert name in shown


def test_the_script_runs_all_steps(trainer: Settings, tmp_path: Path) -> None:
    events = tmp_path / "my events.csv"
    lines = [f"{row['user_id']},{row['item_id']},like,{row['timestamp']}" for row in world.parity()]
    events.write_text("\n".join(["user_id,item_id,event_type,timestamp", *lines]) + "\n", "utf-8")
    variables = {
        **environment(trainer),
        "MINUTES": "0.05",
        "WORK": str(tmp_path / "work"),
        "PYTHON": sys.executable,
    }
    script = ["sh", str(ROOT / "train_all_models.sh"), "--events", str(events), "--no-lease"]
    done = subprocess.run(script, env=variables, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    bundle = Registry(trainer.models_path).load(strict=True)
    assert done.stdout.strip().endswith(str(bundle.version))
    assert bundle.manifest.settings["hyperparameters_from"].endswith("hyperparameters.json")
