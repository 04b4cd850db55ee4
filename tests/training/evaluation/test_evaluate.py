"""An evaluation judges the answers that are served, and the gate refuses a worse bundle."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from core.errors import DatasetError, Interrupted, ModelError
from core.settings import Settings
from core.types import Recommendations, Request, UserState
from engines.als import ALSEngine
from engines.recommender import Recommender
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from models.registry import Registry
from tests.training import world
from tests.training.world import row
from training import als
from training.als import Hyperparameters
from training.data.dataset import Dataset
from training.data.popularity import popular
from training.evaluation import evaluate, output, population, processes
from training.evaluation.evaluate import ROUTED, Evaluation, Inputs
from training.job import gate

SMALL = Hyperparameters(factors=4, regularization=5.0, alpha=2.0, iterations=10)


@pytest.fixture
def settings(offline: Settings) -> Settings:
    return offline


def judged(
    settings: Settings, data: Dataset, model: ALSModel | None = None, users: int = 1000
) -> Evaluation:
    """The evaluation of `data` with `model`, or with a fitted one."""
    split, entries = data.split(settings.holdout_fraction), world.items()
    content = ContentModel.fit(entries)
    who = population.draw(data, split, content, settings, population.Sample(users, seed=1))
    fitted = model or als.fit(data.interactions(split.train), SMALL, seed=1)
    at_cut = popular(data, settings, split.train)
    bundle = Bundle.of(catalogue=entries, als=fitted, content=content, popular=at_cut)
    return evaluate.evaluate(bundle, Inputs(entries, at_cut.scores, data, split, settings), who)


def random_model(data: Dataset) -> ALSModel:
    """A model of random item factors."""
    factors = np.random.default_rng(0).normal(size=(len(data.items), 8)).astype(np.float32)
    return ALSModel(IdMap(data.items.ids), factors, regularization=0.1, alpha=5.0)


def test_personal_engines_are_better_than_popularity(settings: Settings) -> None:
    evaluation = judged(settings, world.built(settings, world.parity()))
    means = {
        (engine, name): evaluation.mean(engine, name)
        for engine in ("als", "content_based", "popular")
        for name in ("ndcg@10", "diversity@10", "novelty@10")
    }
    assert means["als", "ndcg@10"] > 1.3 * means["popular", "ndcg@10"]
    assert means["content_based", "ndcg@10"] > 1.3 * means["popular", "ndcg@10"]
    assert means["als", "diversity@10"] < means["popular", "diversity@10"] - 0.1, (
        "a list of one parity has one category"
    )
    assert means["als", "novelty@10"] > means["popular", "novelty@10"]


def test_users_without_new_items_are_not_judged_and_items_of_the_history_are_no_candidates(
    settings: Settings,
) -> None:
    rows = [row(offset, f"u{offset % 5}", f"i{offset % 4}") for offset in range(40)]
    rows += [row(40 + user, f"u{user}", "i9" if user else "i0") for user in range(4)]
    rows += [row(50, "newcomer", "i3")]
    data = world.built(settings, rows)
    evaluation = judged(settings.model_copy(update={"holdout_fraction": 0.1}), data)
    who, ids = evaluation.judged, evaluation.judged.items.ids
    segments = {
        data.users.ids[user]: segment
        for user, segment in zip(who.users.tolist(), who.segments.tolist(), strict=True)
    }
    assert segments == {"u1": "warm", "u2": "warm", "u3": "warm", "newcomer": "cold"}, (
        "u0 has an old item again, u4 has none"
    )
    for place, user in enumerate(who.users.tolist()):
        had = {f"i{offset % 4}" for offset in range(40) if f"u{offset % 5}" == data.users.ids[user]}
        listed = {ids[item] for item in evaluation.ranked[ROUTED][place].tolist() if item >= 0}
        assert listed, "every user gets an answer"
        assert not listed & had


def test_without_users_to_judge_an_error_says_so(settings: Settings) -> None:
    data = world.built(settings, [row(offset, "ann", "a") for offset in range(10)])
    with pytest.raises(DatasetError, match="nothing to judge by"):
        population.draw(
            data, data.split(0.2), ContentModel.fit([]), settings, population.Sample(10, seed=1)
        )


def test_an_item_beyond_the_history_cap_is_no_candidate(settings: Settings) -> None:
    short = settings.model_copy(update={"history_cap": 50})
    rows = [row(offset, "ann", f"i{offset}") for offset in range(75)] + [
        row(75 + turn, f"u{turn}", f"i{turn}") for turn in range(20)
    ]
    rows += [row(95 + turn, "ann", f"new{turn}") for turn in range(5)]
    evaluation = judged(
        short.model_copy(update={"holdout_fraction": 0.05}), world.built(settings, rows)
    )
    had = {f"i{number}" for number in range(75)}
    for engine, lists in evaluation.ranked.items():
        listed = {evaluation.judged.items.ids[item] for item in lists[0].tolist() if item >= 0}
        assert not listed & had, engine


def test_the_seed_draws_a_bounded_number_of_users(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    first, again = (judged(settings, data, users=10).judged for _ in range(2))
    assert len(first.users) == 10
    assert first.out_of == world.USERS
    assert first.users.tolist() == again.users.tolist()


def test_a_routed_answer_is_that_of_the_engine_of_the_router(settings: Settings) -> None:
    evaluation = judged(settings, world.built(settings, world.parity()))
    np.testing.assert_array_equal(evaluation.ranked[ROUTED], evaluation.ranked["als"])


def test_items_of_a_fallback_do_not_count_for_an_engine(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    two = ALSModel(
        IdMap(["i0", "i1"]), np.eye(2, 8, dtype=np.float32), regularization=0.1, alpha=5.0
    )
    evaluation = judged(settings, data, two)
    assert (evaluation.ranked["als"] >= 0).sum(axis=1).max() <= 2
    assert (evaluation.ranked[ROUTED] >= 0).sum(axis=1).min() >= 15, (
        "fallbacks complete the list of the user"
    )


def test_an_engine_that_fails_raises_instead_of_falling_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(ALSEngine, "score", broken)
    with pytest.raises(ModelError, match="engine als failed with RuntimeError"):
        judged(settings, world.built(settings, world.parity()))


def test_the_evaluation_calls_the_recommender_that_serves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[UserState, Request]] = []
    serve = Recommender.recommend

    def recommend(self: Recommender, state: UserState, request: Request) -> Recommendations:
        calls.append((state, request))
        return serve(self, state, request)

    monkeypatch.setattr(Recommender, "recommend", recommend)
    data = world.built(settings, world.parity())
    evaluation = judged(settings, data)
    cut = evaluation.split.cut
    assert {state.user_id for state, _ in calls} == {f"u{user}" for user in range(world.USERS)}
    assert max(event.timestamp for state, _ in calls for event in state.history) < cut, (
        "no state has an event after the cut"
    )
    assert all(state.events == len(state.history) for state, _ in calls)


def test_an_evaluation_in_several_processes_has_the_results_of_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit."""
    monkeypatch.setattr(processes, "START_S", -1.0)
    monkeypatch.setattr(processes, "MAPPED_BYTES", 1)
    started = Mock(wraps=processes._in_processes)
    monkeypatch.setattr(processes, "_in_processes", started)
    data, field = world.built(settings, world.parity()), "evaluation_processes"
    two, one = (judged(settings.model_copy(update={field: n}), data) for n in (2, 1))
    assert [call.args[-1] for call in started.call_args_list] == [2]
    assert two.rows == one.rows
    for engine, lists in one.ranked.items():
        np.testing.assert_array_equal(two.ranked[engine], lists)
        np.testing.assert_array_equal(two.answers[engine], one.answers[engine])


def test_the_json_and_csv_files_have_the_same_rows(settings: Settings, tmp_path: Path) -> None:
    evaluation = judged(settings, world.built(settings, world.parity()))
    output.save(evaluation, tmp_path / "evaluation", {"describes": "test"})
    about = json.loads((tmp_path / "evaluation" / "metrics.json").read_text("utf-8"))
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(about["rows"])
    kinds = {(row["engine"], row["segment"], row["metric"]): row for row in about["rows"]}
    for name in ("precision", "recall", "map", "ndcg"):
        for k in (5, 10, 20):
            ndcg = kinds["als", "all", f"{name}@{k}"]
            assert ndcg["low"] <= ndcg["mean"] <= ndcg["high"]
    assert {"diversity@10", "coverage@10", "novelty@10"} <= {metric for _, _, metric in kinds}
    assert kinds["als", "warm", "ndcg@10"]["users"] == world.USERS


def publish(settings: Settings, data: Dataset, model: ALSModel) -> str:
    """A live bundle whose judged model is `model`."""

    def write(folder: Path) -> None:
        model.save(folder / "als")
        model.save(folder / gate.JUDGED_ALS)
        ContentModel.fit(world.items()).save(folder / "content")
        popular(data, settings).save(folder / "popular")

    return Registry(settings.models_path).publish(write)


def inputs_of(settings: Settings, data: Dataset) -> Inputs:
    split = data.split(settings.holdout_fraction)
    return Inputs(world.items(), popular(data, settings, split.train).scores, data, split, settings)


def decided(settings: Settings, data: Dataset, candidate: Evaluation | None) -> dict[str, Any]:
    inputs, who = (
        (inputs_of(settings, data), candidate.judged) if candidate is not None else (None, None)
    )
    live = gate.ask_live(Registry(settings.models_path), inputs, who)
    return gate.decide(live, candidate, "no split", settings)


def test_the_first_bundle_is_accepted(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    assert decided(settings, data, judged(settings, data))["decision"] == gate.ACCEPTED
    assert decided(settings, data, None)["decision"] == gate.ACCEPTED


def test_the_gate_refuses_a_worse_bundle_and_accepts_others(
    settings: Settings,
) -> None:
    data = world.built(settings, world.parity())
    good, bad = judged(settings, data), judged(settings, data, random_model(data))
    split = data.split(settings.holdout_fraction)
    publish(settings, data, als.fit(data.interactions(split.train), SMALL, seed=1))
    verdict = decided(settings, data, bad)
    assert verdict["decision"] == gate.REFUSED
    assert "worse by more than 5%" in verdict["cause"]
    same = decided(settings, data, good)
    assert (same["decision"], same["ndcg@10"]) == (gate.ACCEPTED, same["live_ndcg@10"])
    Registry(settings.models_path).publish(lambda folder: random_model(data).save(folder / "als"))
    assert decided(settings, data, good)["decision"] == gate.ACCEPTED


def test_the_evaluation_of_the_live_bundle_can_be_interrupted(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    candidate = judged(settings, data)
    publish(settings, data, random_model(data))

    def stop() -> None:
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        gate.ask_live(
            Registry(settings.models_path), inputs_of(settings, data), candidate.judged, stop
        )


def test_the_gate_accepts_a_loss_within_the_margin(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    split = data.split(settings.holdout_fraction)
    publish(settings, data, als.fit(data.interactions(split.train), SMALL, seed=1))
    generous = settings.model_copy(update={"gate_margin": 1.0})
    assert (
        decided(generous, data, judged(settings, data, random_model(data)))["decision"]
        == gate.ACCEPTED
    )


def test_the_gate_refuses_a_bundle_without_an_evaluation(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    publish(settings, data, random_model(data))
    verdict = decided(settings, data, None)
    assert (verdict["decision"], verdict["cause"]) == (
        gate.REFUSED,
        "the new bundle cannot be judged: no split",
    )


def test_the_gate_accepts_a_bundle_when_the_live_one_is_damaged(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    version = publish(settings, data, random_model(data))
    (settings.models_path / version / "als" / "item_factors.npy").write_bytes(b"damaged")
    verdict = decided(settings, data, judged(settings, data))
    assert verdict["decision"] == gate.ACCEPTED
    assert "item_factors.npy" in verdict["cause"]
