"""A retrain in a process of its own: it publishes a whole bundle, or leaves the old one and says
why, whatever happens to it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from core.errors import ConfigurationError, GateRefused, LeaseLost, StoreUnavailable
from core.settings import Settings
from core.types import HistoryEvent, Request, UserState
from engines.builder import build
from models.registry import Registry
from store.state import keys, retrains
from store.state.lease import Lease
from testing.process import ROOT
from tests.support import delete_user, eventually
from tests.training import world
from tests.training.job.run import environment, published, run
from training.job import gate
from training.job.run import STEPS

LONG_PRUNE = """
import runpy, signal
from models.registry import Registry
Registry.prune = lambda *_: signal.pause()
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""
"""`python -m training` whose last and short step waits to be killed."""


def started(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A retrain in a process of its own, and the name of every step that begins."""
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


def test_a_retrain_publishes_a_bundle_with_models_dataset_and_evaluation(
    trainer: Settings, redis: Redis
) -> None:
    version = published(trainer)
    registry = Registry(trainer.models_path)
    bundle = registry.load(strict=True)
    folder = trainer.models_path / version
    assert bundle.version == version
    assert set(bundle.parts) == {"als", "content", "popular", "router"}
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
    assert redis.get(keys.ONLY.model_current) == version.encode()
    assert redis.get(keys.ONLY.lease(retrains.LEASE)) is None
    fan = UserState(
        user_id="u0",
        events=10,
        history=[HistoryEvent(0, "like", f"i{number}") for number in range(0, 20, 2)],
    )
    answer = build(bundle, settings=trainer).recommend(fan, Request(limit=5))
    assert answer.method_used == "als"
    assert all(int(line.item_id[1:]) % 2 == 0 for line in answer.recommendations)


@pytest.mark.parametrize("step", STEPS)
def test_a_retrain_killed_at_any_step_leaves_a_complete_live_bundle_and_its_lease_expires(
    trainer: Settings, redis: Redis, step: str
) -> None:
    before = published(trainer)
    for child, reached in started(trainer):
        if reached == step:
            child.send_signal(signal.SIGKILL)
            child.wait()
            break
    else:
        pytest.fail(f"the retrain did not reach {step}")
    registry = Registry(trainer.models_path)
    live = registry.current()
    assert live == before or STEPS.index(step) >= STEPS.index("publish")
    for version in registry.versions():
        registry.verify(version)
    assert not registry.load(strict=True).missing
    assert retrains.last(redis)["status"] == "running", (
        "the status shows that it did not end, and its step"
    )
    assert STEPS.index(retrains.last(redis)["step"]) >= STEPS.index(step)
    eventually(
        lambda: redis.get(keys.ONLY.lease(retrains.LEASE)) is None,
        "the lease of the killed trainer expires",
        timeout=3 * world.LEASE_S,
    )
    after = published(trainer)
    assert registry.current() == after
    assert after not in {before, live}


def test_a_second_retrain_at_the_same_time_fails(trainer: Settings, redis: Redis) -> None:
    with Lease(redis, retrains.LEASE, 60) as lease:
        done = run(trainer, "retrain")
    assert done.returncode == 1
    assert f"retrain is already running at {lease.holder}" in done.stderr
    assert "Traceback" not in done.stderr
    assert Registry(trainer.models_path).current() is None


def test_a_retrain_that_lost_its_lease_publishes_nothing(
    trainer: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate_decide = gate.decide

    def decide(*arguments: Any) -> dict[str, Any]:
        redis.set(keys.ONLY.lease(retrains.LEASE), "another trainer")
        return gate_decide(*arguments)

    monkeypatch.setattr(gate, "decide", decide)
    with pytest.raises(LeaseLost):
        published(trainer)
    assert Registry(trainer.models_path).versions() == []
    assert redis.get(keys.ONLY.lease(retrains.LEASE)) == b"another trainer", (
        "the lease of the other trainer stays"
    )


def test_a_worse_bundle_is_refused_without_force_and_shows_its_own_metrics(
    trainer: Settings, redis: Redis, tmp_path: Path
) -> None:
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
    last = retrains.last(redis)
    assert last["status"] == "refused"
    verdict = json.loads(last["gate"])
    registry = Registry(trainer.models_path)
    live = registry.manifest(before).metrics["headline"]
    assert verdict["live"] == before
    assert verdict["live_metrics"]["routed"] == live["routed"]
    assert verdict["metrics"].keys() == live.keys(), "its own metrics, of every engine"
    assert verdict["metrics"]["routed"]["ndcg@10"] < live["routed"]["ndcg@10"]
    assert verdict["difference"][1] < 0
    shown = run(trainer, "models", "show", "refused")
    assert json.loads(shown.stdout)["metrics"]["headline"] == verdict["metrics"]
    reported = run(trainer, "report", "--model", "refused", "--output", str(tmp_path / "page.html"))
    assert reported.returncode == 0, reported.stderr
    assert "The gate refused it" in (tmp_path / "page.html").read_text("utf-8")
    assert registry.versions() == [before], "a refused bundle is no version"
    forced = published(worse, force=True)
    assert Registry(trainer.models_path).manifest(forced).gate["forced"] is True
    rolled_back = run(trainer, "models", "rollback")
    assert rolled_back.stdout.strip() == f"{before} is live"
    assert redis.get(keys.ONLY.model_current) == before.encode()


def test_a_bundle_is_compared_with_the_one_that_is_live_after_the_fit(
    trainer: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = published(trainer), published(trainer)
    registry, gate_ask_live, answers = Registry(trainer.models_path), gate.ask_live, []

    def ask_live(*arguments: Any) -> gate.Live:
        answers.append(gate_ask_live(*arguments))
        if len(answers) == 1:
            registry.rollback()
        return answers[-1]

    monkeypatch.setattr(gate, "ask_live", ask_live)
    assert registry.manifest(published(trainer)).gate["live"] == good
    assert [live.version for live in answers] == [bad, good]


def test_without_redis_a_retrain_fails_clearly_or_works_from_files(
    trainer: Settings, tmp_path: Path
) -> None:
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
    lines = [f"{row['user_id']};{row['item_id']};{row['timestamp']}" for row in world.parity()]
    events.write_text("\n".join(["who;what;when", *lines]) + "\n", "utf-8")
    content = world.write_items(tmp_path / "items.jsonl")
    content.write_text(content.read_text("utf-8").replace('"item_id"', '"sku"'), "utf-8")
    done = run(
        away,
        *("retrain", "--no-lease", "--events", str(events), "--items", str(content)),
        *("--map", "user_id=who,item_id=what,timestamp=when", "--constant", "event_type=like"),
        *("--items-map", "item_id=sku"),
    )
    assert done.returncode == 0, done.stderr
    version = done.stdout.split()[-1]
    assert len(Registry(trainer.models_path).load(version, strict=True).catalogue) == world.ITEMS


def test_deleted_users_are_in_no_dataset_and_no_model(trainer: Settings, redis: Redis) -> None:
    delete_user(trainer, "u0", world.START + 1000 * world.DAY, 0)
    folder = trainer.models_path / published(trainer)
    for mapping in ("dataset/als_user_mapping.json", "als/als_user_mapping.json"):
        users = json.loads((folder / mapping).read_text("utf-8"))
        assert "u0" not in users
        assert "u1" in users


def test_a_retrain_fails_while_the_deletions_in_redis_are_incomplete(
    trainer: Settings, redis: Redis
) -> None:
    redis.flushall()
    with pytest.raises(StoreUnavailable, match="the deletions in Redis are not complete"):
        published(trainer)
    assert Registry(trainer.models_path).current() is None


def test_a_bundle_that_cannot_be_evaluated_is_published_only_if_it_is_the_first(
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
