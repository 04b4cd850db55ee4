"""Explanations: the same fields for every engine, and contributions that add up to the score."""

from __future__ import annotations

import msgspec
import pytest

from core.types import Filters, Reason, Request, UserState
from engines import router
from engines.builder import build, with_catalogue
from engines.explain import EngineView, Explanation, explain
from engines.recommender import Recommender
from models.ensemble import Blend
from tests.engines import world

ITEM = "medpay"  # fintech and health
OWN = ("pay", "pill")
ADA = world.user(*OWN, events=25, interests=["fintech"])


def recommender() -> Recommender:
    blend = Blend(weights={"als": 0.5, "two_tower": 0.3, "content_based": 0.2})
    return build(world.bundle(two_tower=world.two_tower(), ensemble=blend))


def explained(state: UserState = ADA) -> Explanation:
    return explain(recommender(), state, ITEM, Request(limit=20))


def view(name: str, state: UserState = ADA) -> EngineView:
    return next(
        engine_view for engine_view in explained(state).engines if engine_view.engine == name
    )


def named(reasons: list[Reason], field: str) -> set[str]:
    return {text for reason in reasons for text in getattr(reason, field)}


def test_an_explanation_has_every_engine_in_the_order_of_the_chain() -> None:
    assert [engine_view.engine for engine_view in explained().engines] == list(router.CHAIN)


@pytest.mark.parametrize("engine", router.CHAIN)
def test_every_engine_fills_the_same_fields(engine: str) -> None:
    engine_view = view(engine)
    assert engine_view.cause is None
    assert engine_view.score is not None
    assert engine_view.rank is not None
    assert 1 <= engine_view.rank <= engine_view.candidates
    assert engine_view.contributions
    for reason in engine_view.contributions:
        assert reason.text
        assert reason.contribution is not None
        assert set(reason.items) <= set(OWN), "only items of the user's history"
    values = [reason.contribution or 0.0 for reason in engine_view.contributions]
    assert values == sorted(values, reverse=True)
    assert set(msgspec.to_builtins(engine_view)) == set(EngineView.__struct_fields__), (
        "all fields are present, also when empty"
    )


@pytest.mark.parametrize("engine", ["als", "two_tower", "content_based", "ensemble"])
def test_contributions_name_the_items_of_the_history(engine: str) -> None:
    assert named(view(engine).contributions, "items") == set(OWN)


@pytest.mark.parametrize("engine", ["two_tower", "content_based", "ensemble"])
def test_contributions_name_the_matching_attributes(engine: str) -> None:
    assert "fintech" in named(view(engine).contributions, "attributes")


@pytest.mark.parametrize("engine", ["als", "content_based", "ensemble", "popular"])
def test_the_contributions_add_up_to_the_score(engine: str) -> None:
    engine_view = view(engine)
    assert sum(reason.contribution or 0.0 for reason in engine_view.contributions) == pytest.approx(
        engine_view.score, rel=1e-5
    )


def test_a_term_names_the_history_items_that_have_it() -> None:
    by_term = {
        reason.attributes[0]: reason.items
        for reason in view("content_based").contributions
        if reason.attributes
    }
    assert by_term["fintech"] == ["pay"]
    assert by_term["health"] == ["pill"]
    alone = view("content_based", world.user(interests=["fintech"])).contributions
    assert {reason.attributes[0]: reason.items for reason in alone if reason.attributes} == {
        "fintech": []
    }


def test_the_ensemble_score_is_the_sum_of_weight_times_normalised_score() -> None:
    views = {engine_view.engine: engine_view for engine_view in explained().engines}
    parts = {name: views[name] for name in ("als", "two_tower", "content_based")}
    assert {name: part.weight for name, part in parts.items()} == {
        "als": 0.5,
        "two_tower": 0.3,
        "content_based": 0.2,
    }
    assert all(0.0 <= (part.normalised or 0.0) <= 1.0 for part in parts.values())
    total = sum((part.weight or 0.0) * (part.normalised or 0.0) for part in parts.values())
    assert views["ensemble"].score == pytest.approx(total, rel=1e-6)
    assert (views["popular"].weight, views["ensemble"].weight) == (None, None)


def test_an_explanation_of_a_shown_item_has_the_view_of_every_engine() -> None:
    explanation = explain(
        world.recommender(), world.user("pay", "pill", events=7), "bank", Request(limit=3)
    )
    assert (explanation.shown, explanation.removed_by, explanation.method_used) == (True, [], "als")
    assert explanation.rank == explanation.rank_if_allowed
    views = {view.engine: view for view in explanation.engines}
    assert list(views) == ["ensemble", "als", "two_tower", "content_based", "popular"]
    assert sum(part.contribution or 0 for part in views["als"].contributions) == pytest.approx(
        views["als"].score, rel=1e-4
    )
    assert views["als"].contributions[0].items == ["pay"]
    assert views["content_based"].rank is not None
    assert views["popular"].rank is not None
    assert views["two_tower"].cause is not None
    assert explanation.routing == (
        "7 interactions: content_based < 5 <= als < 20 <= ensemble (ROUTER=fixed)"
    )


def test_an_explanation_names_every_filter_that_removes_an_item() -> None:
    use_case = world.recommender().settings.use_cases.by_name["developer_startup"]
    recommender = world.recommender()
    request = Request(
        limit=3,
        use_case=use_case,
        filters=Filters(categories=("fintech",), exclude_items=frozenset({"care"})),
    )
    explanation = explain(recommender, world.user("care", events=7), "care", request)
    assert not explanation.shown
    assert explanation.rank is None
    assert explanation.rank_if_allowed is not None
    assert explanation.removed_by == [
        "it is not available",
        "its categories are 'health', asked for 'fintech'",
        "the user has already interacted with it",
        "the request excludes it by its id",
    ]
    scaleup = explain(recommender, world.user("pay"), "medpay", Request(use_case=use_case))
    assert scaleup.removed_by == ["its type is 'scaleup', and the use case serves 'startup'"]
    assert explain(recommender, world.user("pay"), "unheard-of", Request()).removed_by == [
        "neither the catalogue nor a model knows it"
    ]
    ghost = explain(recommender, world.user("pay"), "ghost", Request(use_case=use_case))
    assert ghost.removed_by[0].startswith("the catalogue has no entry")
    without_bank = with_catalogue(recommender, recommender.catalogue.updated([], ["bank"]))
    assert explain(without_bank, world.user("pay"), "bank", Request()).removed_by == [
        "it was deleted from the catalogue"
    ]


def test_an_item_below_the_limit_is_explained_by_its_rank() -> None:
    explanation = explain(
        world.recommender(), world.user("pay", events=7), "gene", Request(limit=1)
    )
    assert not explanation.shown
    assert explanation.removed_by == []
    assert explanation.rank_if_allowed is not None
    assert explanation.rank_if_allowed > 1
