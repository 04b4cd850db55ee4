"""Why, in one shape: whatever engine is asked, an explanation names what it rests on in the same fields, and the sums are right."""

from __future__ import annotations

import msgspec
import pytest

from core.types import Reason, Request, UserState
from engines import router
from engines.builder import build
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
    return next(each for each in explained(state).engines if each.engine == name)


def named(reasons: list[Reason], field: str) -> set[str]:
    return {each for reason in reasons for each in getattr(reason, field)}


def test_every_engine_speaks_and_in_the_order_of_the_chain() -> None:
    assert [each.engine for each in explained().engines] == list(router.CHAIN)


@pytest.mark.parametrize("engine", router.CHAIN)
def test_one_shape_for_every_engine(engine: str) -> None:
    found = view(engine)
    assert found.cause is None
    assert found.score is not None
    assert found.rank is not None
    assert 1 <= found.rank <= found.candidates
    assert found.contributions
    for reason in found.contributions:
        assert reason.text
        assert reason.contribution is not None
        assert set(reason.items) <= set(OWN), "the user's own items and no others"
    values = [reason.contribution or 0.0 for reason in found.contributions]
    assert values == sorted(values, reverse=True)
    assert set(msgspec.to_builtins(found)) == set(EngineView.__struct_fields__), "nothing is left out, so programs need not ask"


@pytest.mark.parametrize("engine", ["als", "two_tower", "content_based", "ensemble"])
def test_the_users_own_items_are_named(engine: str) -> None:
    assert named(view(engine).contributions, "items") == set(OWN)


@pytest.mark.parametrize("engine", ["two_tower", "content_based", "ensemble"])
def test_the_attributes_that_matched_are_named(engine: str) -> None:
    assert "fintech" in named(view(engine).contributions, "attributes")


@pytest.mark.parametrize("engine", ["als", "content_based", "ensemble", "popular"])
def test_the_contributions_are_the_score(engine: str) -> None:
    found = view(engine)
    assert sum(reason.contribution or 0.0 for reason in found.contributions) == pytest.approx(found.score, rel=1e-5)


def test_a_term_names_the_items_that_brought_it_and_no_others() -> None:
    by_term = {reason.attributes[0]: reason.items for reason in view("content_based").contributions if reason.attributes}
    assert by_term["fintech"] == ["pay"]
    assert by_term["health"] == ["pill"]
    alone = view("content_based", world.user(interests=["fintech"])).contributions
    assert {reason.attributes[0]: reason.items for reason in alone if reason.attributes} == {"fintech": []}


def test_each_parts_share_of_the_blend_is_its_weight_times_its_normalised_score() -> None:
    views = {each.engine: each for each in explained().engines}
    parts = {name: views[name] for name in ("als", "two_tower", "content_based")}
    assert {name: part.weight for name, part in parts.items()} == {"als": 0.5, "two_tower": 0.3, "content_based": 0.2}
    assert all(0.0 <= (part.normalised or 0.0) <= 1.0 for part in parts.values())
    total = sum((part.weight or 0.0) * (part.normalised or 0.0) for part in parts.values())
    assert views["ensemble"].score == pytest.approx(total, rel=1e-6)
    assert (views["popular"].weight, views["ensemble"].weight) == (None, None)
