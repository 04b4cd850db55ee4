"""A retrain judges the router by its evaluation: what users get, and which thresholds suit them."""

from __future__ import annotations

import json

import pytest

from core.settings import Settings
from engines.builder import build
from models.registry import Registry
from models.router import served
from tests.training import world
from tests.training.evaluation.test_evaluate import judged, random_model
from tests.training.job.run import published, run
from training.evaluation.evaluate import ROUTED, Evaluation
from training.job import router


@pytest.fixture
def evaluation(offline: Settings) -> Evaluation:
    """Warm users, whom the router gives ALS, which knows nothing; content knows what they like."""
    data = world.built(offline, world.parity())
    return judged(offline, data, random_model(data))


def test_users_who_get_a_worse_engine_prefer_other_thresholds(
    offline: Settings, evaluation: Evaluation
) -> None:
    judgement = router.judge(evaluation, offline)
    assert judgement.served is not None
    thresholds = judgement.served.thresholds
    assert thresholds.better
    assert thresholds.preferred[0] > 9, "content, for users with 9 events"
    (warm,) = [one for one in judgement.served.segments if one.segment == "warm"]
    assert (warm.users, warm.best_engine) == (world.USERS, "content_based")
    assert warm.fixed == pytest.approx(evaluation.mean("als", "ndcg@10"), abs=0.001)
    assert warm.auto == pytest.approx(warm.best, abs=0.001)
    assert "% below content_based alone" in served.summary(judgement.served)
    assert "ROUTER=auto (" in served.summary(judgement.served)


def test_with_router_auto_the_evaluation_has_what_users_will_get(
    offline: Settings, evaluation: Evaluation
) -> None:
    fixed = router.judge(evaluation, offline).evaluation
    automatic = router.judge(evaluation, offline.with_overrides({"router": "auto"})).evaluation
    assert fixed.mean(ROUTED, "ndcg@10") == evaluation.mean(ROUTED, "ndcg@10")
    assert automatic.mean(ROUTED, "ndcg@10") == evaluation.mean("content_based", "ndcg@10")
    (routed,) = [
        row
        for row in automatic.rows
        if (row["engine"], row["segment"], row["metric"]) == (ROUTED, "all", "ndcg@10")
    ]
    assert routed["mean"] == pytest.approx(automatic.mean(ROUTED, "ndcg@10"), abs=1e-6)


def test_too_few_judged_users_choose_no_thresholds(offline: Settings) -> None:
    data = world.built(offline, world.parity())
    few = judged(offline, data, users=39)
    assert router.judge(few, offline) == router.RouterJudgement(few, None)


def test_a_bundle_has_its_thresholds_and_says_what_users_get(trainer: Settings) -> None:
    version = published(trainer)
    bundle = Registry(trainer.models_path).load(version, strict=True)
    measured = served.of_manifest(bundle.manifest.metrics)
    assert measured is not None
    assert bundle.router == measured.thresholds
    assert build(bundle, settings=trainer).thresholds.why == "ROUTER=fixed"
    shown = json.loads(run(trainer, "models", "show").stdout)
    assert next(iter(shown)) == "summary", "the first line"
    assert shown["summary"] == served.summary(measured)
    page = (trainer.models_path / version / "evaluation" / "report.html").read_text("utf-8")
    first = page.index("<p")
    assert f"<strong>{served.summary(measured)}</strong>" in page[first : first + 1000]
