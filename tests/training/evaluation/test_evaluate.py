"""What is judged is what is served, and a new bundle goes live only if it answers as well as the
old one.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

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
from training.evaluation import evaluate, output, population
from training.evaluation.evaluate import ROUTED, Evaluation, Inputs
from training.job import gate

SMALL = Hyperparameters(factors=4, regularization=5.0, alpha=2.0, iterations=10)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        archive_url=str(tmp_path / "archive"),
        models_path=tmp_path / "models",
        holdout_fraction=0.25,
    )


def judged(
    settings: Settings, data: Dataset, model: ALSModel | None = None, users: int = 1000
) -> Evaluation:
    """`data`, judged with a fitted model or with `model`."""
    split, content, entries = (
        data.split(settings.holdout_fraction),
        ContentModel.fit(world.items()),
        world.items(),
    )
    who = population.draw(data, split, content, settings, users, seed=1)
    fitted = model or als.fit(data.interactions(split.train), SMALL, seed=1)
    at_cut = popular(data, settings, split.train)
    bundle = Bundle.of(catalogue=entries, als=fitted, content=content, popular=at_cut)
    return evaluate.evaluate(bundle, Inputs(entries, at_cut.scores, data, split, settings), who)


def random_model(data: Dataset) -> ALSModel:
    """A model that knows the items and nothing about them."""
    factors = np.random.default_rng(0).normal(size=(len(data.items), 8)).astype(np.float32)
    return ALSModel(IdMap(data.items.ids), factors, regularization=0.1, alpha=5.0)


def test_who_knows_the_parity_is_better_than_who_knows_the_crowd(settings: Settings) -> None:
    found = judged(settings, world.built(settings, world.parity()))
    assert found.mean("als", "ndcg@10") > 1.3 * found.mean("popular", "ndcg@10")
    assert found.mean("content_based", "ndcg@10") > 1.3 * found.mean("popular", "ndcg@10")
    assert found.mean("als", "diversity@10") < found.mean("popular", "diversity@10") - 0.1, (
        "a list of one parity has one category"
    )
    assert found.mean("als", "novelty@10") > found.mean("popular", "novelty@10")


def test_a_user_who_took_nothing_new_is_not_judged_and_what_they_had_is_no_candidate(
    settings: Settings,
) -> None:
    rows = [row(offset, f"u{offset % 5}", f"i{offset % 4}") for offset in range(40)]
    rows += [row(40 + user, f"u{user}", "i9" if user else "i0") for user in range(4)]
    rows += [row(50, "newcomer", "i3")]
    data = world.built(settings, rows)
    found = judged(settings.model_copy(update={"holdout_fraction": 0.1}), data)
    who, ids = found.judged, found.judged.items.ids
    segments = {
        data.users.ids[user]: segment
        for user, segment in zip(who.users.tolist(), who.segments.tolist(), strict=True)
    }
    assert segments == {"u1": "warm", "u2": "warm", "u3": "warm", "newcomer": "cold"}, (
        "u0 took again what it had, u4 nothing"
    )
    for place, user in enumerate(who.users.tolist()):
        had = {f"i{offset % 4}" for offset in range(40) if f"u{offset % 5}" == data.users.ids[user]}
        listed = {ids[item] for item in found.ranked[ROUTED][place].tolist() if item >= 0}
        assert listed, "everybody gets an answer"
        assert not listed & had


def test_nobody_to_judge_by_is_one_clear_line(settings: Settings) -> None:
    data = world.built(settings, [row(offset, "ann", "a") for offset in range(10)])
    with pytest.raises(DatasetError, match="nothing to judge by"):
        population.draw(data, data.split(0.2), ContentModel.fit([]), settings, 10, seed=1)


def test_an_item_older_than_the_history_cap_is_still_no_candidate(settings: Settings) -> None:
    short = settings.model_copy(update={"history_cap": 50})
    rows = [row(offset, "ann", f"i{offset}") for offset in range(75)] + [
        row(75 + turn, f"u{turn}", f"i{turn}") for turn in range(20)
    ]
    rows += [row(95 + turn, "ann", f"new{turn}") for turn in range(5)]
    found = judged(short.model_copy(update={"holdout_fraction": 0.05}), world.built(settings, rows))
    had = {f"i{number}" for number in range(75)}
    for engine, lists in found.ranked.items():
        listed = {found.judged.items.ids[item] for item in lists[0].tolist() if item >= 0}
        assert not listed & had, engine


def test_the_number_of_users_is_bounded_and_drawn_by_seed(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    first, again = (judged(settings, data, users=10).judged for _ in range(2))
    assert len(first.users) == 10
    assert first.out_of == world.USERS
    assert first.users.tolist() == again.users.tolist()


def test_a_routed_answer_is_the_routed_engines_answer(settings: Settings) -> None:
    found = judged(settings, world.built(settings, world.parity()))
    np.testing.assert_array_equal(found.ranked[ROUTED], found.ranked["als"])


def test_an_engine_is_not_credited_with_what_another_filled_in(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    two = ALSModel(
        IdMap(["i0", "i1"]), np.eye(2, 8, dtype=np.float32), regularization=0.1, alpha=5.0
    )
    found = judged(settings, data, two)
    assert (found.ranked["als"] >= 0).sum(axis=1).max() <= 2
    assert (found.ranked[ROUTED] >= 0).sum(axis=1).min() >= 15, "the user gets a whole list"


def test_a_broken_engine_is_not_judged_by_its_fallback(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(ALSEngine, "score", broken)
    with pytest.raises(ModelError, match="engine als failed with RuntimeError"):
        judged(settings, world.built(settings, world.parity()))


def test_the_evaluation_asks_the_recommender_that_serves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[UserState, Request]] = []
    really = Recommender.recommend

    def recommend(self: Recommender, state: UserState, request: Request) -> Recommendations:
        asked.append((state, request))
        return really(self, state, request)

    monkeypatch.setattr(Recommender, "recommend", recommend)
    data = world.built(settings, world.parity())
    found = judged(settings, data)
    cut = found.split.cut
    assert {state.user_id for state, _ in asked} == {f"u{user}" for user in range(world.USERS)}
    assert max(event.timestamp for state, _ in asked for event in state.history) < cut, (
        "nobody is told the future"
    )
    assert all(state.events == len(state.history) for state, _ in asked)


def test_the_files_say_what_the_table_says(settings: Settings, tmp_path: Path) -> None:
    found = judged(settings, world.built(settings, world.parity()))
    output.save(found, tmp_path / "evaluation", {"describes": "test"})
    about = json.loads((tmp_path / "evaluation" / "metrics.json").read_text("utf-8"))
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(about["rows"])
    kinds = {(each["engine"], each["segment"], each["metric"]): each for each in about["rows"]}
    for name in ("precision", "recall", "map", "ndcg"):
        for k in (5, 10, 20):
            one = kinds["als", "all", f"{name}@{k}"]
            assert one["low"] <= one["mean"] <= one["high"]
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


def test_a_worse_bundle_is_refused_and_a_better_one_is_not(settings: Settings) -> None:
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


def test_the_questions_to_the_live_bundle_can_be_stopped(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    candidate = judged(settings, data)
    publish(settings, data, random_model(data))

    def stop() -> None:
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        gate.ask_live(
            Registry(settings.models_path), inputs_of(settings, data), candidate.judged, stop
        )


def test_a_margin_is_respected(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    split = data.split(settings.holdout_fraction)
    publish(settings, data, als.fit(data.interactions(split.train), SMALL, seed=1))
    generous = settings.model_copy(update={"gate_margin": 1.0})
    assert (
        decided(generous, data, judged(settings, data, random_model(data)))["decision"]
        == gate.ACCEPTED
    )


def test_what_cannot_be_judged_does_not_replace_what_was(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    publish(settings, data, random_model(data))
    verdict = decided(settings, data, None)
    assert (verdict["decision"], verdict["cause"]) == (
        gate.REFUSED,
        "the new bundle cannot be judged: no split",
    )


def test_a_damaged_live_bundle_does_not_stand_in_the_way(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    version = publish(settings, data, random_model(data))
    (settings.models_path / version / "als" / "item_factors.npy").write_bytes(b"damaged")
    verdict = decided(settings, data, judged(settings, data))
    assert verdict["decision"] == gate.ACCEPTED
    assert "item_factors.npy" in verdict["cause"]
