"""A retrain in a process of its own: it publishes a whole bundle, or leaves the old one and says
why, whatever happens to it.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from rich.console import Console

from core.errors import ConfigurationError, GateRefused, LeaseLost, StoreUnavailable
from core.settings import Settings
from core.types import HistoryEvent, Request, UserState
from engines.builder import build
from models.als import ALSModel
from models.registry import Registry
from store.state import keys, retrains
from store.state.lease import Lease
from testing.process import ROOT, settings_environment
from tests.support import delete_user, eventually
from tests.training import world
from training import commands, model_commands
from training.job import gate
from training.job.retrain import Options, retrain
from training.job.run import STEPS
from training.tuning.command import Part
from training.tuning.study import TuneOptions


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, **settings_environment(settings), "COLUMNS": "200"}


def run(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m training ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT,
        env=environment(settings),
        text=True,
        capture_output=True,
    )


def published(settings: Settings, **options: Any) -> str:
    """The version that a retrain in this process makes live."""
    return retrain(settings, Options(**options), Console(file=io.StringIO()))


LONG_PRUNE = """
import runpy, signal
from models.registry import Registry
Registry.prune = lambda *_: signal.pause()
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""
"""`python -m training` whose last step, which is over in no time, waits to be killed."""


def started(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A retrain in a process of its own, and each step as it begins."""
    with subprocess.Popen(
        [sys.executable, "-c", LONG_PRUNE, "retrain"],
        cwd=ROOT,
        env=environment(settings),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line[:1].isdigit() and f"/{len(STEPS)} " in line:
                yield child, line.split()[1]
        child.kill()


def test_a_retrain_publishes_everything_that_serving_and_people_need(
    trainer: Settings, redis: Redis
) -> None:
    version = published(trainer)
    registry = Registry(trainer.models_path)
    bundle = registry.load(strict=True)
    folder = trainer.models_path / version
    assert bundle.version == version
    assert set(bundle.parts) == {"als", "content", "popular"}
    assert len(bundle.catalogue) == world.ITEMS
    assert bundle.manifest.positions == {trainer.interactions_topic: {"0": 480, "1": 480}}
    assert bundle.manifest.metrics["dataset"]["events"] == 960
    assert (
        bundle.manifest.metrics["headline"]["als"]["ndcg@10"]
        > bundle.manifest.metrics["headline"]["popular"]["ndcg@10"]
    )
    assert set(bundle.manifest.libraries) >= {"implicit", "numpy", "scipy"}
    named = set(bundle.manifest.files)
    assert {
        "dataset/als_interactions.npz",
        "dataset/als_user_mapping.json",
        "dataset/als_item_mapping.json",
        "als/item_factors.npy",
        "als/user_gram.npy",
        "evaluation/metrics.json",
        "evaluation/metrics.csv",
        "evaluation/report.html",
    } <= named
    assert not [name for name in named if name.endswith((".pkl", ".pickle", ".joblib", ".pt"))]
    assert (folder / "dataset" / "dataset.json").is_file()
    assert retrains.last(redis)["status"] == "published"
    assert redis.get(keys.MODEL_CURRENT) == version.encode()
    assert redis.get(keys.lease(retrains.LEASE)) is None
    fan = UserState(
        user_id="u0",
        events=10,
        history=[HistoryEvent(0, "like", f"i{number}") for number in range(0, 20, 2)],
    )
    answer = build(bundle, settings=trainer).recommend(fan, Request(limit=5))
    assert answer.method_used == "als"
    assert all(int(line.item_id[1:]) % 2 == 0 for line in answer.recommendations)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_a_retrain_leaves_a_whole_bundle_live_and_frees_its_lease(
    trainer: Settings, redis: Redis, step: str
) -> None:
    before = published(trainer)
    for child, reached in started(trainer):
        if reached == step:
            child.send_signal(signal.SIGKILL)
            child.wait()
            break
    else:
        pytest.fail(f"the retrain never came to {step}")
    registry = Registry(trainer.models_path)
    live = registry.current()
    assert live == before or STEPS.index(step) >= STEPS.index("publish")
    for version in registry.versions():
        registry.verify(version)
    assert not registry.load(strict=True).missing
    assert retrains.last(redis)["status"] == "running", (
        "whoever looks sees that it never ended, and where it stood"
    )
    assert STEPS.index(retrains.last(redis)["step"]) >= STEPS.index(step)
    eventually(
        lambda: redis.get(keys.lease(retrains.LEASE)) is None,
        "the lease of the killed trainer is free",
        timeout=3 * world.LEASE_S,
    )
    after = published(trainer)
    assert registry.current() == after
    assert after not in {before, live}


def test_one_retrain_at_a_time(trainer: Settings, redis: Redis) -> None:
    with Lease(redis, retrains.LEASE, 60) as lease:
        done = run(trainer, "retrain")
    assert done.returncode == 1
    assert f"retrain is already running at {lease.holder}" in done.stderr
    assert "Traceback" not in done.stderr
    assert Registry(trainer.models_path).current() is None


def test_a_trainer_that_lost_its_lease_publishes_nothing(
    trainer: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = gate.decide

    def decide(*arguments: Any) -> dict[str, Any]:
        redis.set(keys.lease(retrains.LEASE), "another trainer")
        return really(*arguments)

    monkeypatch.setattr(gate, "decide", decide)
    with pytest.raises(LeaseLost):
        published(trainer)
    assert Registry(trainer.models_path).versions() == []
    assert redis.get(keys.lease(retrains.LEASE)) == b"another trainer", (
        "and takes nobody else's lease away"
    )


def test_a_worse_model_is_refused_and_forced_only_by_force(trainer: Settings, redis: Redis) -> None:
    before = published(trainer)
    worse = trainer.model_copy(
        update={
            "als_factors": 1,
            "als_alpha": 0.001,
            "als_regularization": 1000.0,
            "als_iterations": 1,
        }
    )
    with pytest.raises(GateRefused, match=r"worse by more than 5%.*--force"):
        published(worse)
    assert Registry(trainer.models_path).current() == before
    assert retrains.last(redis)["status"] == "refused"
    forced = published(worse, force=True)
    assert Registry(trainer.models_path).manifest(forced).gate["forced"] is True
    rolled_back = run(trainer, "models", "rollback")
    assert rolled_back.stdout.strip() == f"{before} is live"
    assert redis.get(keys.MODEL_CURRENT) == before.encode()


def test_a_bundle_that_is_rolled_back_while_a_model_is_fitted_is_not_what_the_model_is_compared_with(
    trainer: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = published(trainer), published(trainer)
    registry, really, asked = Registry(trainer.models_path), gate.ask_live, []

    def ask_live(*arguments: Any) -> gate.Live:
        asked.append(really(*arguments))
        if len(asked) == 1:
            registry.rollback()
        return asked[-1]

    monkeypatch.setattr(gate, "ask_live", ask_live)
    assert registry.manifest(published(trainer)).gate["live"] == good
    assert [live.version for live in asked] == [bad, good]


def test_without_redis_it_says_so_or_works_from_files(trainer: Settings, tmp_path: Path) -> None:
    away = trainer.model_copy(
        update={"redis_url": SecretStr("redis://127.0.0.1:1/0"), "redis_timeout_s": 1.0}
    )
    done = run(away, "retrain")
    assert done.returncode == 1
    assert "REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ConfigurationError, match="who were deleted"):
        published(away, lease=False)
    events = tmp_path / "events.csv"
    lines = [f"{row['user_id']},{row['item_id']},like,{row['timestamp']}" for row in world.parity()]
    events.write_text("\n".join(["user_id,item_id,event_type,timestamp", *lines]) + "\n", "utf-8")
    version = published(
        away, lease=False, events=events, items=world.write_items(tmp_path / "items.jsonl")
    )
    assert len(Registry(trainer.models_path).load(version, strict=True).catalogue) == world.ITEMS


def test_deleted_users_are_not_learnt_from(trainer: Settings, redis: Redis) -> None:
    delete_user(trainer, "u0", world.START + 1000 * world.DAY, 0)
    folder = trainer.models_path / published(trainer)
    for mapping in ("dataset/als_user_mapping.json", "als/als_user_mapping.json"):
        users = json.loads((folder / mapping).read_text("utf-8"))
        assert "u0" not in users
        assert "u1" in users


def test_nothing_is_learnt_while_nobody_knows_who_was_deleted(
    trainer: Settings, redis: Redis
) -> None:
    redis.flushall()
    with pytest.raises(StoreUnavailable, match="the deletions in Redis are not complete"):
        published(trainer)
    assert Registry(trainer.models_path).current() is None


def test_too_little_to_judge_by_is_published_once_and_then_refused(
    trainer: Settings, redis: Redis
) -> None:
    same_time = trainer.model_copy(update={"archive_url": trainer.archive_url + "-same-time"})
    world.archived(
        same_time,
        [
            world.row(offset, f"u{offset % 3}", f"i{offset}", timestamp=world.START)
            for offset in range(12)
        ],
    )
    version = published(same_time)
    assert (
        "leaves one side empty"
        in Registry(trainer.models_path).manifest(version).metrics["describes"]
    )
    with pytest.raises(GateRefused, match="cannot be judged"):
        published(same_time)


def test_old_bundles_are_pruned_and_the_commands_show_the_rest(
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
    assert [(each["version"], each["live"]) for each in listed] == [
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


def test_the_steps_one_by_one_and_the_search_between(trainer: Settings, tmp_path: Path) -> None:
    folder, found, study = tmp_path / "dataset", tmp_path / "found.json", tmp_path / "study.sqlite"
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
        trainer, Part.ALS, folder, None, TuneOptions(study, found, 1.0, 3, threads=1), console
    )
    assert json.loads(found.read_text("utf-8"))["tuned"]["als"]["trials"] == 3
    commands.tune(
        trainer, Part.ALS, folder, None, TuneOptions(study, found, 1.0, 2, threads=1), console
    )
    about = json.loads(found.read_text("utf-8"))
    tuned = about["tuned"]["als"]
    assert tuned["trials"] == 5, "it went on"
    assert tuned["value"] >= tuned["configured"]["value"], "the configured ones were tried too"
    version = published(trainer, hyperparameters=found)
    assert Registry(trainer.models_path).manifest(version).settings["als"] == about["als"]


def test_the_help_names_every_command(trainer: Settings) -> None:
    shown = run(trainer, "--help").stdout
    for name in ("dataset", "als", "evaluate", "retrain", "worker", "request", "tune", "models"):
        assert name in shown


def test_the_script_runs_the_whole_pipeline(trainer: Settings, tmp_path: Path) -> None:
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
