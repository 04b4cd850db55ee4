"""The Two-Tower engine ranks by the latest events.

It uses content and profile for new items and users.
"""

from __future__ import annotations

import numpy as np
import pytest

from core.types import HistoryEvent, Item, Request, UserState
from engines.base import NotApplicable
from engines.builder import build, with_catalogue
from engines.recommender import Recommender
from engines.two_tower import KIND, TwoTowerEngine
from models.two_tower import TwoTowerFacts, TwoTowerModel
from tests.engines import world
from tests.models.test_two_tower import random_model

ALL = Request(limit=100)


def recommender() -> Recommender:
    return build(world.bundle(two_tower=world.two_tower()))


def engine() -> TwoTowerEngine:
    two_tower = recommender().engines["two_tower"]
    assert isinstance(two_tower, TwoTowerEngine)
    return two_tower


def answer(state: UserState, request: Request = ALL) -> list[str]:
    return [item.item_id for item in engine().recommend(state, request)]


def test_the_latest_event_has_the_most_weight() -> None:
    assert answer(world.user("pill", "pay"))[0] == "bank"
    assert answer(world.user("pay", "pill"))[0] == "gene"


def test_events_are_read_in_the_order_of_their_timestamps() -> None:
    late = [HistoryEvent(9, "like", "pill"), HistoryEvent(5, "like", "pay")]
    assert answer(UserState(user_id="ada", events=2, history=late))[0] == "gene"


def test_events_with_unknown_items_are_skipped_and_only_the_latest_are_read() -> None:
    state = world.user("pill", "pay", "never-heard-of")
    assert answer(state)[0] == "bank"
    scoring = engine().score(world.user("pill", "pay", "bank", "coin", "medpay"), ALL)
    read = {
        reason.items[0]
        for reason in scoring.contributions(engine().catalogue.rows["gene"])
        if reason.items
    }
    assert read == {"bank", "coin", "medpay"}  # its history is 3


def test_a_user_without_history_is_scored_by_declared_interests() -> None:
    result = engine().recommend(world.user(interests=["health"]), Request(limit=2))
    assert [item.item_id for item in result] == ["pill", "gene"]
    assert result[0].reasons[0].text == "matches your interests: health"
    with pytest.raises(NotApplicable, match="no history and no declared interests"):
        engine().score(UserState(user_id="x"), ALL)
    with pytest.raises(NotApplicable, match="knows no item of the user's history and no term"):
        engine().score(world.user("never-heard-of", interests=["unheard of"]), ALL)


def test_a_new_item_gets_a_vector_from_its_content() -> None:
    current = recommender()
    new = [
        Item(item_id=name, item_type="startup", categories=[label])
        for name, label in (("new", "health"), ("odd", "unheard of"))
    ]
    later = with_catalogue(current, current.catalogue.updated(new))
    updated_engine = later.engines["two_tower"]
    result = [item.item_id for item in updated_engine.recommend(world.user("pill"), ALL)]
    assert "new" in result
    assert "odd" not in result
    assert updated_engine.recommend(world.user("new"), Request(limit=1))[0].item_id == "pill"
    assert [item.item_id for item in later.similar("new", Request(limit=2)).recommendations] == [
        "pill",
        "gene",
    ]
    with pytest.raises(NotApplicable, match="odd is not in the Two-Tower model"):
        updated_engine.similar("odd")


def test_an_updated_catalogue_gives_the_scores_of_one_built_at_once() -> None:
    current = recommender()
    new = [
        Item(
            item_id=f"new{number}",
            item_type="startup",
            categories=["health" if number % 2 else "fintech"],
        )
        for number in range(5)
    ]
    updated = current
    for item in new:
        updated = with_catalogue(updated, updated.catalogue.updated([item]))
    at_once = build(current.bundle, current.catalogue.updated(new))
    state = world.user("pay", "new1")
    scores = [
        {item.item_id: item.score for item in variant.engines["two_tower"].recommend(state, ALL)}
        for variant in (updated, at_once)
    ]
    assert scores[0] == scores[1]
    assert {"new0", "new4", "bank"} <= scores[0].keys()


def test_reasons_name_the_most_similar_recent_items() -> None:
    result = engine().recommend(world.user("pill", "pay"), Request(limit=1))[0]
    assert result.item_id == "bank"
    assert result.reasons[0].kind == KIND
    assert result.reasons[0].items == ["pay"]
    assert result.reasons[0].text == "follows from Payflow"


def test_a_contribution_is_the_loss_of_score_without_the_event() -> None:
    items = [Item(item_id=f"i{row}", item_type="startup") for row in range(7)]
    model = random_model()
    current = TwoTowerEngine(model, recommender().catalogue.updated(items))
    state = world.user("i1", "i2", "i3")
    row = current.catalogue.rows["i5"]
    whole, without = (
        float(current.score(state_or_part, ALL).scores[row])
        for state_or_part in (
            state,
            UserState(user_id="x", history=[state.history[0], state.history[2]]),
        )
    )
    parts = {
        reason.items[0]: reason.contribution
        for reason in current.score(state, ALL).contributions(row)
    }
    assert set(parts) == {"i1", "i2", "i3"}
    assert parts["i2"] == pytest.approx(whole - without, abs=1e-5)


def test_events_before_the_latest_still_change_the_scores() -> None:
    facts = TwoTowerFacts(
        dimension=8, layers=1, heads=1, history=2, items=7, event_types=["like"], roles=[]
    )
    model = random_model(facts)
    assert isinstance(model, TwoTowerModel)
    current = TwoTowerEngine(
        model,
        recommender().catalogue.updated(
            [Item(item_id=f"i{row}", item_type="startup") for row in range(7)]
        ),
    )
    scores = [
        current.score(world.user(*items), ALL).scores
        for items in (("i1", "i2"), ("i0", "i1", "i2"), ("i4", "i1", "i2"))
    ]
    assert not np.allclose(scores[0], scores[1], atol=1e-3)
    assert not np.allclose(scores[1], scores[2], atol=1e-3)


def test_items_that_only_the_model_has_are_recommended() -> None:
    current = build(world.bundle(two_tower=random_model()))
    result = current.recommend(
        UserState(user_id="x", history=[HistoryEvent(1, "like", "i1")]),
        Request(limit=3, engine="two_tower"),
    )
    assert {line.method for line in result.recommendations} == {"two_tower"}
    assert {line.item_id for line in result.recommendations} <= current.catalogue.rows.keys()
