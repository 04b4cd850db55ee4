"""The recommender: routing, the fallback chain with its causes, and updates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import structlog

from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Filters, Item, Request, UserState
from engines import router
from engines.base import Engine, Scoring
from engines.builder import build, with_catalogue, with_popularity
from engines.catalogue import Catalogue
from engines.explain import explain
from engines.recommender import Recommender
from models import files
from models.bundle import CATALOGUE, Bundle
from models.registry import Registry
from tests.engines import world


def steps(
    recommender: Recommender, state: UserState, request: Request | None = None
) -> tuple[str, list[str]]:
    answer = recommender.recommend(state, request or Request(limit=2))
    return answer.method_used, [step.engine for step in answer.fallbacks]


@pytest.mark.parametrize(
    ("events", "method", "fallbacks"),
    [
        (1, "content_based", []),
        (4, "content_based", []),
        (5, "als", []),
        (19, "als", []),
        (20, "als", ["ensemble"]),
    ],
)
def test_the_live_number_of_events_picks_the_engine(
    events: int, method: str, fallbacks: list[str]
) -> None:
    assert steps(world.recommender(), world.user("pay", events=events)) == (method, fallbacks)


def test_the_thresholds_are_settings() -> None:
    recommender = world.recommender(cold_start_threshold=1, warm_user_threshold=2)
    assert str(recommender.thresholds) == "content_based < 1 <= als < 2 <= ensemble"
    assert steps(recommender, world.user("pay"))[0] == "als"
    assert [router.segment(events, recommender.settings) for events in (0, 1, 2)] == [
        "cold",
        "warm",
        "hot",
    ]


def test_an_unknown_user_gets_popular_items_with_the_cause() -> None:
    answer = world.recommender().recommend(UserState(user_id="stranger"), Request(limit=2))
    assert [line.item_id for line in answer.recommendations] == ["gene", "pill"]
    assert (answer.method_used, answer.interaction_count, answer.model_version, answer.as_of) == (
        "popular",
        0,
        "v1",
        0,
    )
    assert [step.engine for step in answer.fallbacks] == ["content_based"]
    assert answer.fallbacks[0].cause == "the user has no history and no declared interests"


def test_a_recommendation_has_the_metadata_of_its_item() -> None:
    line = (
        world.recommender()
        .recommend(world.user("bank", events=7), Request(limit=1))
        .recommendations[0]
    )
    assert (line.item_id, line.rank, line.method) == ("pay", 1, "als")
    attributes = {"stage": "seed", "founded": 2019}
    assert line.metadata == {
        "title": "Payflow",
        "item_type": "startup",
        "categories": ["fintech"],
        "attributes": attributes,
    }


def test_the_next_engine_fills_the_rest_and_each_item_names_its_engine() -> None:
    """ALS scores six of the seven eligible items, and not `mute`."""
    answer = world.recommender().recommend(world.user("pay", events=7), Request(limit=100))
    assert answer.method_used == "als"
    assert [line.rank for line in answer.recommendations] == list(range(1, 8))
    assert {line.item_id for line in answer.recommendations} == {
        "bank",
        "coin",
        "pill",
        "gene",
        "medpay",
        "ghost",
        "mute",
    }
    assert answer.recommendations[-1].method == "popular"
    assert [step.engine for step in answer.fallbacks] == ["als", "two_tower", "content_based"]
    assert answer.fallbacks[0].cause == "scored only 6 of the 7 requested items"


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"enable_als": False}, "disabled by ENABLE_ALS=false"),
        ({}, "the bundle was made without its part 'als'"),
    ],
)
def test_an_absent_engine_is_a_fallback_with_its_cause(
    settings: dict[str, bool], cause: str
) -> None:
    parts = world.bundle() if settings else world.bundle(als=None)
    answer = build(parts, settings=Settings(**settings)).recommend(
        world.user("pay", events=7), Request(limit=2)
    )
    assert answer.method_used == "content_based"
    assert (answer.fallbacks[0].engine, answer.fallbacks[0].cause) == ("als", cause)


class Broken(Engine):
    name = "als"

    def score(self, state: UserState, request: Request) -> Scoring:
        raise ZeroDivisionError("boom")


def test_an_engine_that_raises_is_logged_and_the_next_one_answers() -> None:
    with structlog.testing.capture_logs() as logs:
        recommender = world.recommender()
        recommender.engines["als"] = Broken()
        answer = recommender.recommend(world.user("pay", events=7), Request(limit=2))
    assert answer.method_used == "content_based"
    assert answer.fallbacks[0].cause == "failed with ZeroDivisionError; the log has the traceback"
    assert any(entry["event"] == "engine_failed" and entry["exc_info"] for entry in logs)


def test_each_read_logs_the_routing_at_debug_level() -> None:
    with structlog.testing.capture_logs() as logs:
        world.recommender().recommend(world.user("pay", events=7), Request(limit=2))
    assert {
        "interactions": 7,
        "routed": "als",
        "engine": "als",
        "log_level": "debug",
    }.items() <= logs[0].items()


def test_an_answer_is_not_empty_while_an_item_is_eligible() -> None:
    """No bundle at all, no popularity: the catalogue alone answers, newest first."""
    recommender = build(Bundle.empty(), world.catalogue(), {}, Settings())
    answer = recommender.recommend(world.user("gene", events=30), Request(limit=100))
    assert [line.item_id for line in answer.recommendations] == [
        "medpay",
        "pill",
        "coin",
        "bank",
        "pay",
        "mute",
    ]
    assert answer.method_used == "popular"
    assert "python -m training retrain" in answer.fallbacks[1].cause


def test_when_no_item_is_eligible_the_answer_is_empty() -> None:
    answer = world.recommender().recommend(
        world.user("pay", events=7), Request(filters=Filters(categories=("nothing",)))
    )
    assert answer.recommendations == []


def test_a_request_can_name_the_engine() -> None:
    assert steps(
        world.recommender(), world.user("pay", events=99), Request(limit=2, engine="content_based")
    ) == ("content_based", [])
    assert steps(
        world.recommender(), world.user("pay", events=99), Request(limit=2, engine="popular")
    ) == ("popular", [])
    with pytest.raises(ConfigurationError, match=r"'magic'.*ensemble, als"):
        world.recommender().recommend(world.user(), Request(engine="magic"))


def test_newer_popularity_is_used_also_for_unknown_items() -> None:
    recommender = with_popularity(
        world.recommender(), {"unlabelled": [("brand-new", 9.0), ("coin", 1.0)]}
    )
    answer = recommender.recommend(UserState(user_id="x"), Request(limit=2))
    assert [line.item_id for line in answer.recommendations] == ["brand-new", "coin"]
    startups = Request(limit=1, filters=Filters(item_types=("startup",)))
    assert [
        line.item_id
        for line in recommender.recommend(UserState(user_id="x"), startups).recommendations
    ] == ["coin"]


def test_a_deleted_item_stays_hidden_while_model_and_popularity_have_it() -> None:
    recommender = world.recommender()
    recommender = with_catalogue(recommender, recommender.catalogue.updated([], ["gene", "ghost"]))
    recommender = with_popularity(recommender, {"unlabelled": [("gene", 9.0)]})
    shown = {
        line.item_id
        for line in recommender.recommend(
            world.user("pill", events=7), Request(limit=100)
        ).recommendations
    }
    assert shown == {"pay", "bank", "coin", "medpay", "mute"}


def test_an_item_that_was_deleted_before_the_start_stays_hidden() -> None:
    """A process that starts later reads a catalogue without `gene`; the bundle still has it."""
    current = Catalogue.of([item for item in world.ITEMS if item.item_id != "gene"])
    recommender = build(world.bundle(), current, {"unlabelled": [("gene", 9.0)]}, Settings())
    for state in (world.user("pill", events=7), world.user("pill"), world.user()):
        shown = {
            line.item_id
            for line in recommender.recommend(state, Request(limit=100)).recommendations
        }
        assert "gene" not in shown
        assert "ghost" in shown
    assert explain(recommender, world.user("pill"), "gene", Request()).removed_by == [
        "it was deleted from the catalogue"
    ]


def test_a_recommender_loaded_from_disk_gives_the_same_answers(tmp_path: Path) -> None:
    parts = world.bundle()

    def write(folder: Path) -> None:
        files.write_json(folder / CATALOGUE, parts.catalogue)
        for name, part in parts.parts.items():
            part.save(folder / name)

    registry = Registry(tmp_path)
    version = registry.publish(write)
    loaded = build(registry.load(), settings=Settings())
    for state in (world.user("pay", events=7), world.user("pay"), UserState(user_id="x")):
        before = build(parts, settings=Settings()).recommend(state, Request(limit=5))
        after = loaded.recommend(state, Request(limit=5))
        assert after.model_version == version
        assert [line.item_id for line in after.recommendations] == [
            line.item_id for line in before.recommendations
        ]
        assert np.allclose(
            [line.score for line in after.recommendations],
            [line.score for line in before.recommendations],
            rtol=1e-5,
        )


def test_a_changed_item_is_scored_by_its_new_content() -> None:
    recommender = world.recommender()
    changed = Item(item_id="pill", item_type="startup", categories=["fintech"], tags=["payments"])
    recommender = with_catalogue(recommender, recommender.catalogue.updated([changed]))
    answer = recommender.recommend(world.user("pay"), Request(limit=1))
    assert answer.recommendations[0].item_id == "pill"
