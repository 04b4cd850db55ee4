"""The order and the reasons of each engine on the catalogue of `world`."""

from __future__ import annotations

import pytest

from core.types import Item, Request
from engines.builder import build, with_catalogue, with_popularity
from engines.catalogue import Catalogue
from engines.popular import PopularEngine
from engines.recommender import Recommender
from tests.engines import world

ALL = Request(limit=100)


def answer(
    recommender: Recommender,
    engine: str,
    *items: str,
    interests: list[str] | None = None,
    limit: int = 100,
) -> list[str]:
    state = world.user(*items, interests=interests)
    return [
        item.item_id for item in recommender.engines[engine].recommend(state, Request(limit=limit))
    ]


def test_als_ranks_by_the_history() -> None:
    assert answer(world.recommender(), "als", "pay", limit=2) == ["bank", "coin"]
    assert answer(world.recommender(), "als", "pill", limit=2) == ["gene", "medpay"]


def test_als_reasons_name_the_history_items_that_contribute_most() -> None:
    engine = world.recommender().engines["als"]
    reasons = {
        item.item_id: item.reasons[0] for item in engine.recommend(world.user("pay", "pill"), ALL)
    }
    assert reasons["bank"].text == "similar to Payflow"
    assert reasons["gene"].items == ["pill"]
    assert set(reasons["medpay"].items) == {"pay", "pill"}


def test_als_weighs_all_events_of_an_item_by_the_use_case() -> None:
    """Two likes of `pill` weigh more than one of `pay`; for an investor one `invest` in `pay`
    weighs more than both.
    """
    recommender = world.recommender()
    engine, weights = (
        recommender.engines["als"],
        recommender.settings.use_cases.by_name["investor_startup"],
    )
    state = world.user("pill", "pill", "pay")
    shares = {
        part.items[0]: part.contribution
        for part in engine.score(state, ALL).contributions(recommender.catalogue.rows["medpay"])
    }
    assert shares["pill"] > shares["pay"]  # type: ignore[operator]
    invested = world.user("pill", "pill")
    invested.history.append(world.user("pay", event_type="invest").history[0])
    scoring = engine.score(invested, Request(use_case=weights))
    shares = {
        part.items[0]: part.contribution
        for part in scoring.contributions(recommender.catalogue.rows["medpay"])
    }
    assert shares["pay"] > shares["pill"]  # type: ignore[operator]


def test_content_reasons_name_the_matching_interests() -> None:
    recommended = (
        world.recommender()
        .engines["content_based"]
        .recommend(world.user(interests=["fintech", "payments"]), ALL)
    )
    assert [item.item_id for item in recommended[:2]] in (["pay", "bank"], ["bank", "pay"])
    best = next(item for item in recommended if item.item_id == "bank").reasons[0]
    assert best.kind == "matches_your_interests"
    assert best.text == "matches your interests: payments, fintech"
    assert {item.item_id for item in recommended} == {"pay", "bank", "coin", "medpay"}


def test_content_reasons_name_what_an_item_shares_with_the_history() -> None:
    recommended = (
        world.recommender().engines["content_based"].recommend(world.user("pay"), Request(limit=1))
    )
    assert recommended[0].reasons[0].text == "like Payflow: payments, fintech"
    assert recommended[0].reasons[0].items == ["pay"]


def test_content_weighs_recent_events_more() -> None:
    """Fintech a year ago and health today: health leads."""
    long_ago, today = world.user("pay").history[0], world.user("pill").history[0]
    state = world.user()
    state.history.extend([long_ago, type(today)(365 * world.DAY, "like", "pill")])
    assert world.recommender().engines["content_based"].recommend(state, ALL)[0].item_id == "gene"


def test_popular_ranks_by_use_case_then_overall_then_newest() -> None:
    recommender = world.recommender()
    developer = recommender.settings.use_cases.by_name["developer_startup"]
    engine = recommender.engines["popular"]
    recommended = engine.recommend(world.user(), Request(limit=100, use_case=developer))
    assert [item.item_id for item in recommended] == ["pill", "pay", "gene", "coin", "bank", "mute"]
    assert [item.score for item in recommended] == [1, 0.2, 0, 0, 0, 0]
    reasons = [
        "popular with developers",
        "popular with developers",
        "popular now",
        "new in the catalogue",
    ]
    assert [item.reasons[0].text for item in recommended][:4] == reasons
    overall = [item.item_id for item in engine.recommend(world.user(), ALL)]
    assert overall == ["gene", "pill", "pay", "medpay", "coin", "bank", "ghost", "mute"]


def test_items_without_popularity_in_the_use_case_follow_by_overall_popularity() -> None:
    recommender = with_popularity(
        world.recommender(),
        {"investor_startup": [("bank", 1.0), ("pill", 2.0)], "unlabelled": [("gene", 1.5)]},
    )
    developer = recommender.settings.use_cases.by_name["developer_startup"]
    recommended = recommender.engines["popular"].recommend(
        world.user(), Request(limit=3, use_case=developer)
    )
    assert [item.item_id for item in recommended] == ["pill", "gene", "bank"]


@pytest.mark.parametrize("weight", [1e200, 5.3e-46, 1.0])
def test_the_most_popular_item_has_the_score_1_however_old_the_events_are(weight: float) -> None:
    catalogue = Catalogue.of([Item(item_id="a", item_type="x"), Item(item_id="b", item_type="x")])
    engine = PopularEngine({"unlabelled": [("b", 4 * weight), ("a", weight)]}, catalogue)
    recommended = engine.recommend(world.user(), ALL)
    assert [(item.item_id, item.score) for item in recommended] == [("b", 1.0), ("a", 0.25)]
    assert [item.reasons[0].contribution for item in recommended] == [1.0, 0.25]
    assert engine.score(world.user(), ALL).prior.tolist() == [0.5, 1.0]


def test_similar_items_come_from_als_and_for_new_items_from_content() -> None:
    recommender = world.recommender()
    new = Item(item_id="new", item_type="startup", categories=["fintech"])
    recommender = with_catalogue(recommender, recommender.catalogue.updated([new]))
    recommended = recommender.similar("pay", Request(limit=3))
    assert [line.item_id for line in recommended.recommendations] == ["bank", "coin", "ghost"]
    assert recommended.method_used == "als"
    assert recommended.recommendations[0].reasons[0].text == "liked by the same users as Payflow"
    recommended = recommender.similar("new", Request(limit=3))
    assert recommended.method_used == "content_based"
    assert recommended.fallbacks[0].engine == "als"
    assert "new" not in {line.item_id for line in recommended.recommendations}
    assert recommender.similar("unheard-of", Request()).recommendations == []


@pytest.mark.parametrize("engine", ["als", "content_based", "popular"])
def test_a_thousand_catalogue_updates_do_not_change_the_answers(engine: str) -> None:
    """Old rows become dead, and the table is compacted in between."""
    recommender = world.recommender()
    before = answer(recommender, engine, "pay")
    catalogue = recommender.catalogue
    for number in range(1000):
        changed = world.ITEMS[number % 3]
        catalogue = catalogue.updated(
            [Item(item_id=changed.item_id, item_type=f"other-{number}")]
        ).updated([changed])
        if number % 100 == 0:
            recommender = with_catalogue(recommender, catalogue)
            assert sorted(answer(recommender, engine, "pay")) == sorted(before)
    assert len(catalogue.ids) < 1100


def test_an_update_appends_rows_and_leaves_the_others() -> None:
    recommender = world.recommender()
    changed = with_catalogue(
        recommender,
        recommender.catalogue.updated(
            [Item(item_id="new", item_type="startup", categories=["fintech"])]
        ),
    )
    assert changed.catalogue.extends(recommender.catalogue)
    assert changed.catalogue.ids[:-1] == recommender.catalogue.ids


def test_bare_items_of_an_old_bundle_are_removed() -> None:
    previous = world.recommender()
    recommender = build(
        world.bundle(als=None), previous.catalogue, previous.popularity, previous.settings
    )
    assert "ghost" not in recommender.catalogue.rows
    assert len(recommender.catalogue) == len(world.ITEMS)


def test_formerly_popular_bare_items_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.builder.MAX_STALE_BARE_ITEMS", 5)
    recommender = world.recommender()
    for number in range(50):
        recommender = with_popularity(recommender, {"unlabelled": [(f"fad-{number}", 1.0)]})
        assert (
            recommender.recommend(world.user(), Request(limit=1)).recommendations[0].item_id
            == f"fad-{number}"
        )
    assert recommender.catalogue.bare < 20
    assert "ghost" in recommender.catalogue.rows
