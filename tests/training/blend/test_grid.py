"""The served blend is chosen by users whom the evaluation does not judge."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from core.settings import Settings
from core.types import Request, UserState
from engines.base import Scoring
from engines.blending.ensemble import EnsembleEngine
from engines.builder import build
from engines.catalogue import Catalogue
from engines.recommender import Recommender
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from models.registry import Registry
from tests.training import world
from training import als
from training.als import Hyperparameters
from training.blend import choice as blend
from training.blend.grid import BlendChoice
from training.data.dataset import Dataset, Split
from training.data.popularity import popular
from training.evaluation import population
from training.evaluation.evaluate import Inputs
from training.evaluation.population import JudgedUsers, Sample
from training.job.retrain import Options, retrain

SMALL = Hyperparameters(factors=4, regularization=5.0, alpha=2.0, iterations=10)
PEOPLE = 240


@pytest.fixture
def data(offline: Settings) -> Dataset:
    return world.built(offline, world.parity(users=PEOPLE))


def fitted_als(data: Dataset, split: Split) -> ALSModel:
    return als.fit(data.interactions(split.train), SMALL, seed=1)


def random_als(data: Dataset) -> ALSModel:
    factors = np.random.default_rng(0).normal(size=(len(data.items), 8)).astype(np.float32)
    return ALSModel(IdMap(data.items.ids), factors, regularization=0.1, alpha=5.0)


def choose(
    offline: Settings,
    data: Dataset,
    model: ALSModel | None = None,
    judged: int = 20,
    users: int = blend.USERS,
) -> tuple[BlendChoice | None, JudgedUsers]:
    split, content, entries = (
        data.split(offline.holdout_fraction),
        ContentModel.fit(world.items()),
        world.items(),
    )
    who = population.draw(data, split, content, offline, Sample(judged, seed=1))
    at_cut = popular(data, offline, split.train)
    bundle = Bundle.of(
        catalogue=entries, als=model or fitted_als(data, split), content=content, popular=at_cut
    )
    return blend.choose(
        bundle, Inputs(entries, at_cut.scores, data, split, offline), who.users, who.seed, users
    ), who


def test_an_engine_with_random_factors_gets_the_smaller_weight(
    offline: Settings, data: Dataset
) -> None:
    choice, _ = choose(offline, data, random_als(data))
    assert choice is not None
    assert choice.blend.weights["content_based"] > 0.5
    alone = {
        name: value
        for blend, value in choice.candidates
        for name, weight in blend.weights.items()
        if weight == 1
    }
    assert alone["content_based"] > alone["als"]


def test_blends_are_reported_best_first_and_the_best_is_as_good_as_every_engine(
    offline: Settings, data: Dataset
) -> None:
    choice, _ = choose(offline, data)
    assert choice is not None
    values = [value for candidate, value in choice.candidates if candidate.method != "learned"]
    assert values == sorted(values, reverse=True)
    assert len(values) == 2 * 66, "66 grid points of ALS, content and popularity, by two methods"
    alone = max(
        value for candidate, value in choice.candidates if max(candidate.weights.values()) == 1
    )
    assert choice.ndcg >= alone - 0.01
    assert choice.facts() == {
        "weights": choice.blend.weights,
        "fusion": choice.blend.method,
        "ndcg@10": round(choice.candidates[0][1], 6),
        "users": choice.users,
        "unseen_ndcg@10": {
            method: round(value, 6) for method, value in choice.cross_validated.items()
        },
    }
    shown = io.StringIO()
    blend.report(choice, Console(file=shown, width=120))
    assert "content_based" in shown.getvalue()


def test_the_reported_ndcg_is_that_of_the_recommender_that_serves_the_blend(
    offline: Settings, data: Dataset
) -> None:
    """Ask the ensemble itself about everybody: the mean is the one that the choice was made by."""
    choice, who = choose(offline, data, judged=1, users=PEOPLE)
    split, entries = data.split(offline.holdout_fraction), world.items()
    content = ContentModel.fit(entries)
    everybody = population.draw(data, split, content, offline, Sample(PEOPLE, seed=1))
    assert choice is not None
    assert choice.users == len(everybody.users) - 1
    bundle = Bundle.of(
        catalogue=entries, als=fitted_als(data, split), content=content, ensemble=choice.blend
    )
    recommender = build(
        bundle, Catalogue.of(entries), popular(data, offline, split.train).scores, offline
    )
    gains = []
    for place in np.flatnonzero(~np.isin(everybody.users, who.users)).tolist():
        state = everybody.states[place]
        lines = recommender.recommend(
            state, Request(engine="ensemble", filters=everybody.filters[place])
        ).recommendations
        relevant = {everybody.items.ids[row] for row in everybody.held_out[place].indices}
        gain = sum(1 / np.log2(line.rank + 1) for line in lines if line.item_id in relevant)
        gains.append(
            gain / sum(1 / np.log2(rank + 1) for rank in range(1, min(10, len(relevant)) + 1))
        )
    assert choice.ndcg == pytest.approx(float(np.mean(gains)), abs=0.002), (
        "equal scores may fall either way"
    )


def test_users_who_are_judged_do_not_choose_the_blend(
    offline: Settings, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_users: set[str] = set()
    score = blend._score

    def record(
        recommender: Recommender, name: str, state: UserState, request: Request
    ) -> Scoring | None:
        scored_users.add(state.user_id)
        return score(recommender, name, state, request)

    monkeypatch.setattr(blend, "_score", record)
    choice, who = choose(offline, data, judged=60)
    assert choice is not None
    assert choice.users == len(scored_users) >= blend.LEAST_USERS
    assert not scored_users & {data.users.ids[user] for user in who.users.tolist()}


def test_a_small_shop_leaves_users_to_choose_the_blend(offline: Settings, data: Dataset) -> None:
    def judged(users: int, reserve: int) -> int:
        split, content = data.split(offline.holdout_fraction), ContentModel.fit(world.items())
        sample = Sample(users, seed=1, reserve=reserve)
        return len(population.draw(data, split, content, offline, sample).users)

    assert judged(250, reserve=0) == PEOPLE, "nobody would be left"
    assert judged(250, reserve=blend.LEAST_USERS) == PEOPLE - blend.LEAST_USERS
    assert judged(60, reserve=blend.LEAST_USERS) == 60, "enough are left anyway"
    assert judged(250, reserve=200) == PEOPLE // 2, "half of all are judged at least"


def test_a_few_users_replace_a_blend_with_a_useless_engine(
    offline: Settings, data: Dataset
) -> None:
    """ALS is random, so content alone is far better than any blend that has the default weights."""
    choice, _ = choose(offline, data, random_als(data), judged=PEOPLE - 60)
    assert choice is not None
    assert choice.users == 60
    assert choice.blend.weights == {"content_based": 1.0}
    shown = io.StringIO()
    blend.report(choice, Console(file=shown, width=120))
    assert "Chosen: 1 content_based." in shown.getvalue()


def test_too_few_users_or_engines_keep_the_blend_of_the_settings(
    offline: Settings, data: Dataset
) -> None:
    assert choose(offline, data, judged=PEOPLE - blend.FEWEST_USERS + 1)[0] is None
    split, entries = data.split(offline.holdout_fraction), world.items()
    who = population.draw(data, split, ContentModel.fit(entries), offline, Sample(20, seed=1))
    alone = Bundle.of(catalogue=entries, content=ContentModel.fit(entries))
    assert (
        blend.choose(alone, Inputs(entries, {}, data, split, offline), who.users, who.seed) is None
    )


def test_a_retrain_publishes_the_blend_that_its_users_chose(trainer: Settings) -> None:
    small = {
        "enable_two_tower": True,
        "two_tower_dimension": 8,
        "two_tower_epochs": 3,
        "two_tower_history": 10,
    }
    many = trainer.with_overrides({**small, "archive_url": trainer.archive_url + "-many"})
    world.archived(many, world.parity(users=PEOPLE))
    console = Console(file=io.StringIO(), width=120)
    version = retrain(many, Options(users=40), console)
    registry = Registry(many.models_path)
    bundle = registry.load(version, strict=True)
    facts = bundle.manifest.settings["ensemble"]
    assert bundle.ensemble is not None
    assert (bundle.ensemble.weights, bundle.ensemble.method) == (facts["weights"], facts["fusion"])
    assert set(facts["weights"]) <= {"als", "two_tower", "content_based", "popular"}
    assert facts["users"] >= blend.LEAST_USERS
    engine = build(bundle, settings=many).engines["ensemble"]
    assert isinstance(engine, EnsembleEngine)
    assert engine.blend == bundle.ensemble
    page = (many.models_path / version / "evaluation" / "report.html").read_text("utf-8")
    assert "Blends that were tried" in page
    assert f"{facts['users']:,} users chose" in page
    assert "Two-Tower&#39;s training" in page


def test_a_blend_fixed_by_settings_is_not_chosen(offline: Settings, data: Dataset) -> None:
    for name, value in (
        ("ensemble_als_weight", 0.6),
        ("ensemble_fusion", "rank"),
        ("enable_ensemble", False),
    ):
        assert choose(offline.with_overrides({name: value}), data)[0] is None


def test_an_engine_that_cannot_score_many_users_is_not_blended(
    offline: Settings, data: Dataset
) -> None:
    """The ensemble answers only when each of its parts does."""
    split, entries = data.split(offline.holdout_fraction), world.items()
    described = ContentModel.fit(entries)
    who = population.draw(data, split, described, offline, Sample(20, seed=1))
    bundle = Bundle.of(catalogue=entries, als=fitted_als(data, split), content=ContentModel.fit([]))
    assert (
        blend.choose(bundle, Inputs(entries, {}, data, split, offline), who.users, who.seed) is None
    )
