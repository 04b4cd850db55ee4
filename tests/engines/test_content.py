"""The content engine: similarity to the user, combined with a prior for popular and new items."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from core.types import Item, Request, UserState
from engines.builder import build, with_catalogue, with_popularity
from engines.content.vectors import ItemVectors
from engines.recommender import Recommender
from models.bundle import Bundle
from models.content import ContentModel
from tests.engines import world
from tests.engines.world import DAY

ITEMS = [world.item(name, ["fintech"], 1) for name in ("loved", "liked", "unknown")] + [
    world.item("pill", ["health"], 1)
]
POPULAR = {"unlabelled": [("pill", 400.0), ("loved", 100.0), ("liked", 25.0)]}
NEWCOMER = world.user(interests=["fintech"])
LATER = Request(limit=10, at=100.0 * DAY)
"""A time at which no item of ITEMS is new."""


def recommender(items: list[Item] = ITEMS, **settings: object) -> Recommender:
    bundle = Bundle.of("v1", items, content=ContentModel.fit(items))
    return build(bundle, popularity=POPULAR, settings=world.recommender(**settings).settings)


def scores(
    user: UserState = NEWCOMER,
    request: Request = LATER,
    items: list[Item] = ITEMS,
    **settings: object,
) -> dict[str, float]:
    return {
        line.item_id: line.score
        for line in recommender(items, **settings).engines["content_based"].recommend(user, request)
    }


def test_items_of_equal_similarity_are_sorted_by_popularity() -> None:
    """Half of the score is similarity, 1 for all three.

    The other half is the square root of the popularity over the highest popularity, 400.
    """
    assert scores() == pytest.approx(
        {"loved": 0.5 + 0.5 * 0.5, "liked": 0.5 + 0.5 * 0.25, "unknown": 0.5}
    )


def test_popularity_alone_does_not_score_an_item_that_does_not_match() -> None:
    assert "pill" not in scores()


def test_the_share_of_popularity_is_a_setting_and_0_disables_it() -> None:
    assert scores(content_popularity_share=0.2)["loved"] == pytest.approx(0.8 + 0.2 * 0.5)
    assert scores(content_popularity_share=0.0) == pytest.approx(
        {"loved": 1.0, "liked": 1.0, "unknown": 1.0}
    )


def test_the_prior_of_a_new_item_is_a_half_until_its_age_exceeds_new_item_days() -> None:
    items = [*ITEMS, world.item("new", ["fintech"], 95)]
    assert scores(items=items)["new"] == pytest.approx(0.5 + 0.5 * 0.5)
    assert scores(items=items, request=Request(limit=10, at=110.0 * DAY))["new"] == pytest.approx(
        0.5
    )


def test_the_first_events_of_a_new_item_do_not_lower_its_score() -> None:
    items = [*ITEMS, world.item("new", ["fintech"], 95)]
    before = recommender(items)
    after = with_popularity(before, {"unlabelled": [*POPULAR["unlabelled"], ("new", 1.0)]})
    popular_later = with_popularity(
        before, {"unlabelled": [*POPULAR["unlabelled"], ("new", 256.0)]}
    )
    lines = [
        {line.item_id: line.score for line in scored.recommend(NEWCOMER, LATER).recommendations}
        for scored in (before, after, popular_later)
    ]
    assert [scored["new"] for scored in lines] == pytest.approx([0.75, 0.75, 0.5 + 0.5 * 0.8])


def test_each_use_case_has_its_own_popularity() -> None:
    popular = {
        "developer_startup": [("liked", 4.0), ("loved", 1.0)],
        "investor_startup": [("loved", 9.0)],
    }
    updated_recommender = with_popularity(recommender(), popular)
    use_case = updated_recommender.settings.use_cases.by_name["developer_startup"]
    lines = updated_recommender.engines["content_based"].recommend(
        NEWCOMER, Request(limit=2, at=LATER.at, use_case=use_case)
    )
    assert [(line.item_id, line.reasons[-1].text) for line in lines] == [
        ("liked", "popular with developers"),
        ("loved", "popular with developers"),
    ]
    assert [line.score for line in lines] == pytest.approx([1.0, 0.75])


def test_newer_popularity_changes_the_answer_at_once() -> None:
    updated_recommender = with_popularity(
        recommender(), {"unlabelled": [("unknown", 9.0), ("loved", 1.0)]}
    )
    assert [
        line.item_id for line in updated_recommender.recommend(NEWCOMER, LATER).recommendations
    ] == [
        "unknown",
        "loved",
        "liked",
        "pill",
    ]


def test_reasons_name_popularity_and_newness_with_their_contributions() -> None:
    items = [*ITEMS, world.item("new", ["fintech"], 95)]
    lines = {
        line.item_id: line.reasons
        for line in recommender(items).engines["content_based"].recommend(NEWCOMER, LATER)
    }
    reasons_by_item = {
        item_id: [
            (reason.kind, reason.text, round(reason.contribution or 0, 3))
            for reason in item_reasons[1:]
        ]
        for item_id, item_reasons in lines.items()
    }
    assert reasons_by_item == {
        "loved": [("popular", "popular now", 0.25)],
        "liked": [("popular", "popular now", 0.125)],
        "new": [("new", "new in the catalogue", 0.25)],
        "unknown": [],
    }
    assert all(
        item_reasons[0].text == "matches your interests: fintech" for item_reasons in lines.values()
    )


def test_without_popularity_the_prior_is_zero() -> None:
    without_popularity = build(
        Bundle.of("v1", ITEMS, content=ContentModel.fit(ITEMS)),
        popularity={},
        settings=world.recommender().settings,
    )
    assert {
        line.score
        for line in without_popularity.engines["content_based"].recommend(NEWCOMER, LATER)
    } == {0.5}


def test_a_deleted_item_does_not_affect_the_scale() -> None:
    """Otherwise processes that started before and after the deletion would rank differently."""
    items = [world.item("best", ["fintech"], 1), world.item("far", ["fintech", "a", "b", "c"], 1)]
    running = recommender(items)
    deleted = with_catalogue(running, running.catalogue.updated([], ["best"]))
    line = deleted.engines["content_based"].recommend(NEWCOMER, LATER)[0]
    assert (line.item_id, line.score) == ("far", pytest.approx(0.5))


def test_vectors_are_those_of_the_items_however_they_came_into_the_catalogue() -> None:
    """From the training, in another order, changed since, new, or an id without an entry."""
    model = ContentModel.fit(world.ITEMS)
    trained = {item.item_id: item for item in world.ITEMS}
    changed = msgspec.structs.replace(world.ITEMS[1], categories=["health"])
    first = [None, *reversed(world.ITEMS[2:]), changed]
    later = [world.item("new", ["fintech"], 9), None, world.ITEMS[0], changed]
    vectors = ItemVectors.of(model, first, trained).with_items(later)
    assert vectors.with_items([]) is vectors
    expected = np.zeros((len(first) + len(later), len(model.terms)), dtype=np.float32)
    for row, item in enumerate([*first, *later]):
        if item is not None:
            expected[row] = model.vectors([item]).toarray()[0]
    rows = list(range(len(expected)))
    np.testing.assert_allclose([vectors.dense(row) for row in rows], expected, rtol=1e-6)
    columns = np.arange(len(model.terms), dtype=np.int32)
    np.testing.assert_allclose(
        vectors.entries(rows[::-1]).dense(columns, len(rows)), expected[::-1], rtol=1e-6
    )
    assert vectors.known.tolist() == expected.any(axis=1).tolist()
    profile = np.linspace(-1, 1, len(model.terms), dtype=np.float32)
    np.testing.assert_allclose(vectors.products(profile), expected @ profile, rtol=1e-5, atol=1e-6)
