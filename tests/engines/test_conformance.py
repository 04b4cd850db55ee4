"""Tests that every engine must pass, on the same catalogue. Add a new engine to ENGINES."""

from __future__ import annotations

import math

import pytest

from core.types import AttributeFilter, Filters, HistoryEvent, Item, Request, User, UserState
from core.use_cases import UseCases
from engines.als import ALSEngine
from engines.base import Engine
from engines.builder import build, with_catalogue
from engines.catalogue import Catalogue
from engines.content.engine import ContentEngine
from engines.engine_builders import BUILDERS
from engines.popular import PopularEngine
from engines.recommender import Recommender
from models.bundle import Bundle
from models.content import ContentModel
from models.ensemble import Blend
from tests.engines import world

ENGINES = ["als", "two_tower", "content_based", "popular", "ensemble"]
FAN = world.user("pay", interests=["fintech"])
ALL = Request(limit=100)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return recommender().engines[request.param]


def recommender() -> Recommender:
    """The recommender of `world`, with Two-Tower and an ensemble."""
    return build(
        world.bundle(
            two_tower=world.two_tower(), ensemble=Blend(weights={"als": 0.6, "content_based": 0.4})
        ),
        settings=world.recommender().settings,
    )


def ids(engine: Engine, state: UserState, request: Request = ALL) -> list[str]:
    return [item.item_id for item in engine.recommend(state, request)]


def test_every_engine_is_tested_here() -> None:
    assert set(ENGINES) == set(BUILDERS)


def test_answers_are_sorted_finite_and_labelled_with_their_engine(engine: Engine) -> None:
    recommended = engine.recommend(FAN, ALL)
    scores = [item.score for item in recommended]
    assert len(recommended) >= 2
    assert scores == sorted(scores, reverse=True)
    assert all(math.isfinite(score) for score in scores)
    assert {item.engine for item in recommended} == {engine.name}
    assert len({item.item_id for item in recommended}) == len(recommended)


@pytest.mark.parametrize("limit", [0, 1, 2, 100])
def test_the_limit_truncates_the_list(engine: Engine, limit: int) -> None:
    whole = ids(engine, FAN)
    assert ids(engine, FAN, Request(limit=limit)) == whole[:limit]


def test_the_same_request_has_the_same_answer(engine: Engine) -> None:
    assert (
        engine.recommend(FAN, ALL)
        == engine.recommend(FAN, ALL)
        == recommender().engines[engine.name].recommend(FAN, ALL)
    )


def test_seen_items_are_excluded_unless_the_request_includes_them(engine: Engine) -> None:
    assert "pay" not in ids(engine, FAN)
    assert "pay" in ids(engine, FAN, Request(limit=100, filters=Filters(exclude_seen=False)))


@pytest.mark.parametrize(
    ("filters", "allowed"),
    [
        (Filters(item_types=("scaleup",)), {"medpay"}),
        (Filters(categories=("fintech",)), {"bank", "coin", "medpay"}),
        (
            Filters(available_only=False),
            {"bank", "coin", "pill", "gene", "care", "medpay", "mute", "ghost"},
        ),
        (
            Filters(exclude_items=frozenset({"bank", "nobody"})),
            {"coin", "pill", "gene", "medpay", "mute", "ghost"},
        ),
        (Filters(attributes=(AttributeFilter(name="stage", equals="seed"),)), {"coin", "pill"}),
        (
            Filters(attributes=(AttributeFilter(name="founded", low=2010, high=2015),)),
            {"bank", "gene"},
        ),
        (Filters(categories=("nothing",)), set()),
    ],
)
def test_answers_contain_only_items_that_pass_the_filters(
    engine: Engine, filters: Filters, allowed: set[str]
) -> None:
    assert set(ids(engine, FAN, Request(limit=100, filters=filters))) <= allowed


def test_a_use_case_returns_only_its_item_type(engine: Engine) -> None:
    use_case = world.recommender().settings.use_cases.by_name["developer_startup"]
    recommended = ids(engine, FAN, Request(limit=100, use_case=use_case))
    assert recommended
    assert not {"medpay", "ghost"} & set(recommended)


def test_each_item_has_a_reason_in_words(engine: Engine) -> None:
    for item in engine.recommend(FAN, ALL):
        assert item.reasons
        assert all(
            reason.kind and reason.text and not reason.text.endswith(": ")
            for reason in item.reasons
        )


@pytest.mark.parametrize(
    "state",
    [
        UserState(user_id="nobody"),
        world.user("never-heard-of", "nor-of-this"),
        world.user("pay", event_type="retired_event_type"),
        world.user("pay", event_type="dismiss"),
        UserState(
            user_id="x",
            events=1,
            history=[HistoryEvent(0, "rating", "pay", 0.0), HistoryEvent(0, "rating", "pay", 1e6)],
        ),
        UserState(user_id="x", profile=User(user_id="x", interests=["", "  ", "unheard of"])),
        world.user("mute"),
        world.user("ghost"),
    ],
)
def test_unusual_users_get_finite_scores_or_none(engine: Engine, state: UserState) -> None:
    for item in engine.recommend(state, ALL):
        assert math.isfinite(item.score)


def test_an_empty_catalogue_gives_an_empty_answer(engine: Engine) -> None:
    nothing = Bundle.of(
        "v0", [], content=ContentModel.fit([]), ensemble=Blend(weights={"content_based": 1})
    )
    empty = build(nothing, Catalogue.of([], deleted=list(world.FACTORS)), {}).engines.get(
        engine.name
    )
    assert empty is None or ids(empty, FAN) == []


def test_a_deleted_item_disappears_at_once_and_returns_with_a_new_entry(engine: Engine) -> None:
    current = recommender()
    without_bank = with_catalogue(current, current.catalogue.updated([], ["bank"]))
    restored = with_catalogue(without_bank, without_bank.catalogue.updated([world.ITEMS[1]]))
    assert "bank" in ids(engine, FAN)
    assert "bank" not in ids(without_bank.engines[engine.name], FAN)
    assert ids(restored.engines[engine.name], FAN, Request(limit=100)) != []
    assert "bank" in ids(restored.engines[engine.name], FAN)


def test_each_engine_works_without_a_recommender() -> None:
    """As in a notebook: a model, a catalogue and a history are enough."""
    use_cases: UseCases = world.recommender().settings.use_cases
    assert ids(ALSEngine(world.als(), world.catalogue(), use_cases), FAN)[0] == "bank"
    assert (
        ids(
            ContentEngine(ContentModel.fit(world.ITEMS), world.catalogue(), use_cases),
            world.user("pay"),
        )[0]
        == "bank"
    )
    assert ids(PopularEngine(world.POPULAR, world.catalogue()), FAN)[0] == "gene"


def test_contributions_add_up_to_the_score() -> None:
    state = world.user("pay", "pill", interests=["fintech"])
    for name in ("als", "content_based", "ensemble"):
        engine = recommender().engines[name]
        scoring = engine.score(state, ALL)
        for row in scoring.top(engine.catalogue.alive, 100):
            parts = scoring.contributions(row)
            assert sum(part.contribution or 0 for part in parts) == pytest.approx(
                float(scoring.scores[row]), rel=1e-4, abs=1e-5
            )


def test_rank_agrees_with_the_order_of_the_answer(engine: Engine) -> None:
    scoring = engine.score(FAN, ALL)
    allowed = engine.catalogue.alive.copy()
    for rank, row in enumerate(scoring.top(allowed, 100), 1):
        assert scoring.rank(row, allowed) == rank


def test_a_new_item_is_recommended_by_content_at_once() -> None:
    recommender = world.recommender()
    new = Item(
        item_id="new", item_type="startup", categories=["fintech"], tags=["payments"], created_at=0
    )
    updated_recommender = with_catalogue(recommender, recommender.catalogue.updated([new]))
    assert "new" in ids(updated_recommender.engines["content_based"], FAN, Request(limit=2))
