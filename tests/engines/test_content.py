"""What content adds to likeness: among the items that match a user, popular ones lead and new ones get their chance."""

from __future__ import annotations

import pytest

from core.types import Item, Request, UserState
from engines.builder import build, with_catalogue, with_popularity
from engines.recommender import Recommender
from models.bundle import Bundle
from models.content import ContentModel
from tests.engines import world
from tests.engines.world import DAY

ITEMS = [world.item(name, ["fintech"], 1) for name in ("loved", "liked", "unknown")] + [world.item("pill", ["health"], 1)]
POPULAR = {"unlabelled": [("pill", 400.0), ("loved", 100.0), ("liked", 25.0)]}
NEWCOMER = world.user(interests=["fintech"])
LATER = Request(limit=10, at=100.0 * DAY)
"""When none of ITEMS is new any more."""


def recommender(items: list[Item] = ITEMS, **settings: object) -> Recommender:
    bundle = Bundle.of("v1", items, content=ContentModel.fit(items))
    return build(bundle, popularity=POPULAR, settings=world.recommender(**settings).settings)


def scores(user: UserState = NEWCOMER, request: Request = LATER, items: list[Item] = ITEMS, **settings: object) -> dict[str, float]:
    return {line.item_id: line.score for line in recommender(items, **settings).engines["content_based"].recommend(user, request)}


def test_what_matches_equally_comes_by_popularity() -> None:
    """Half of the score is likeness, 1 for all three. The other half is the root of the share of the most popular item's 400 events."""
    assert scores() == pytest.approx({"loved": 0.5 + 0.5 * 0.5, "liked": 0.5 + 0.5 * 0.25, "unknown": 0.5})


def test_popularity_brings_nothing_that_does_not_match() -> None:
    assert "pill" not in scores()


def test_the_share_of_popularity_is_a_setting_and_0_is_likeness_alone() -> None:
    assert scores(content_popularity_share=0.2)["loved"] == pytest.approx(0.8 + 0.2 * 0.5)
    assert scores(content_popularity_share=0.0) == pytest.approx({"loved": 1.0, "liked": 1.0, "unknown": 1.0})


def test_a_new_item_counts_as_half_as_good_as_the_most_popular_until_it_is_new_no_more() -> None:
    items = [*ITEMS, world.item("new", ["fintech"], 95)]
    assert scores(items=items)["new"] == pytest.approx(0.5 + 0.5 * 0.5)
    assert scores(items=items, request=Request(limit=10, at=110.0 * DAY))["new"] == pytest.approx(0.5)


def test_the_first_events_of_a_new_item_do_not_take_it_down() -> None:
    items = [*ITEMS, world.item("new", ["fintech"], 95)]
    before = recommender(items)
    after = with_popularity(before, {"unlabelled": [*POPULAR["unlabelled"], ("new", 1.0)]})
    grown = with_popularity(before, {"unlabelled": [*POPULAR["unlabelled"], ("new", 256.0)]})
    lines = [{line.item_id: line.score for line in each.recommend(NEWCOMER, LATER).recommendations} for each in (before, after, grown)]
    assert [each["new"] for each in lines] == pytest.approx([0.75, 0.75, 0.5 + 0.5 * 0.8])


def test_each_use_case_has_its_own_popularity() -> None:
    popular = {"developer_startup": [("liked", 4.0), ("loved", 1.0)], "investor_startup": [("loved", 9.0)]}
    mine = with_popularity(recommender(), popular)
    use_case = mine.settings.use_cases.by_name["developer_startup"]
    lines = mine.engines["content_based"].recommend(NEWCOMER, Request(limit=2, at=LATER.at, use_case=use_case))
    assert [(line.item_id, line.reasons[-1].text) for line in lines] == [
        ("liked", "popular with developers"),
        ("loved", "popular with developers"),
    ]
    assert [line.score for line in lines] == pytest.approx([1.0, 0.75])


def test_popularity_moves_the_answer_at_once() -> None:
    moved = with_popularity(recommender(), {"unlabelled": [("unknown", 9.0), ("loved", 1.0)]})
    assert [line.item_id for line in moved.recommend(NEWCOMER, LATER).recommendations] == ["unknown", "loved", "liked", "pill"]


def test_the_answer_says_that_an_item_is_popular_or_new_and_how_much_that_gave() -> None:
    items = [*ITEMS, world.item("new", ["fintech"], 95)]
    lines = {line.item_id: line.reasons for line in recommender(items).engines["content_based"].recommend(NEWCOMER, LATER)}
    said = {
        item_id: [(reason.kind, reason.text, round(reason.contribution or 0, 3)) for reason in why[1:]] for item_id, why in lines.items()
    }
    assert said == {
        "loved": [("popular", "popular now", 0.25)],
        "liked": [("popular", "popular now", 0.125)],
        "new": [("new", "new in the catalogue", 0.25)],
        "unknown": [],
    }
    assert all(why[0].text == "matches your interests: fintech" for why in lines.values())


def test_nothing_is_popular_yet() -> None:
    alone = build(Bundle.of("v1", ITEMS, content=ContentModel.fit(ITEMS)), popularity={}, settings=world.recommender().settings)
    assert {line.score for line in alone.engines["content_based"].recommend(NEWCOMER, LATER)} == {0.5}


def test_a_deleted_item_does_not_go_on_setting_the_scale() -> None:
    """Or a process that has seen the deletion would rank differently from one that started after it."""
    items = [world.item("best", ["fintech"], 1), world.item("far", ["fintech", "a", "b", "c"], 1)]
    running = recommender(items)
    deleted = with_catalogue(running, running.catalogue.updated([], ["best"]))
    line = deleted.engines["content_based"].recommend(NEWCOMER, LATER)[0]
    assert (line.item_id, line.score) == ("far", pytest.approx(0.5))
