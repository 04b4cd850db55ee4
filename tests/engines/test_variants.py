"""A variant of an experiment shares the engines of the live recommender.

It differs only in settings.
"""

from __future__ import annotations

from core.types import Request
from engines.builder import build, with_catalogue, with_settings
from engines.recommender import Recommender
from models.ensemble import Blend
from tests.engines import world

BLEND = Blend(weights={"als": 0.6, "two_tower": 0.4})


def _live(**settings: object) -> Recommender:
    live = world.recommender(**settings)
    return build(world.bundle(two_tower=world.two_tower(), ensemble=BLEND), settings=live.settings)


def _variant(
    live: Recommender, previous: Recommender | None = None, **overrides: object
) -> Recommender:
    return with_settings(live, live.settings.with_overrides(overrides), previous)


def _method(recommender: Recommender, events: int) -> str:
    return recommender.recommend(world.user("pay", events=events), Request(limit=1)).method_used


def test_a_variant_shares_all_engines_except_those_with_other_weights() -> None:
    live = _live()
    variant = _variant(live, ensemble_als_weight=0.1, ensemble_two_tower_weight=0.9)
    assert all(
        variant.engines[name] is live.engines[name] for name in ("als", "two_tower", "popular")
    )
    assert variant.engines["content_based"].vectors is live.engines["content_based"].vectors  # type: ignore[attr-defined]
    assert variant.catalogue is live.catalogue
    assert variant.engines["ensemble"].shares == {"als": 0.1, "two_tower": 0.9}  # type: ignore[attr-defined]
    assert live.engines["ensemble"].shares == {"als": 0.6, "two_tower": 0.4}  # type: ignore[attr-defined]


def test_a_variant_without_overrides_gives_the_answers_of_the_live_recommender() -> None:
    live = _live()
    variant = _variant(live)
    assert variant.engines["ensemble"].shares == live.engines["ensemble"].shares  # type: ignore[attr-defined]
    for events in (1, 7, 25):
        state, request = world.user("pay", "gene", events=events), Request(limit=5)
        assert variant.recommend(state, request) == live.recommend(state, request)


def test_a_variant_has_its_own_thresholds() -> None:
    live = _live()
    variant = _variant(live, cold_start_threshold=8, warm_user_threshold=9)
    assert [_method(live, events) for events in (4, 7, 20)] == ["content_based", "als", "ensemble"]
    assert [_method(variant, events) for events in (7, 8, 9)] == [
        "content_based",
        "als",
        "ensemble",
    ]


def test_a_variant_has_its_own_share_of_popularity_in_content() -> None:
    live = _live()
    similarity, popularity = (
        _variant(live, content_popularity_share=0.0),
        _variant(live, content_popularity_share=0.99),
    )
    state, request = world.user("pay", "pill", events=2), Request(limit=1)
    assert similarity.recommend(state, request).recommendations[0].item_id == "medpay", (
        "most similar to the history"
    )
    assert popularity.recommend(state, request).recommendations[0].item_id == "gene", (
        "the most popular that matches"
    )


def test_an_engine_disabled_in_a_variant_is_absent_only_there() -> None:
    live = _live()
    variant = _variant(live, enable_als=False)
    assert variant.unavailable("als") == "disabled by ENABLE_ALS=false"
    assert variant.unavailable("ensemble") == "als: disabled by ENABLE_ALS=false"
    assert _method(variant, 7) == "two_tower"
    assert _method(live, 7) == "als"


def test_an_engine_enabled_in_a_variant_is_reused_at_the_next_swap() -> None:
    live = _live(enable_two_tower=False)
    first = _variant(live, enable_two_tower=True)
    assert _method(first, 25) == "ensemble"
    assert _method(live, 25) == "als"
    newer = with_catalogue(live, live.catalogue.updated([world.item("fresh", ["health"], 9)], []))
    second = _variant(newer, first, enable_two_tower=True)
    assert second.engines["two_tower"]._profiles is first.engines["two_tower"]._profiles  # type: ignore[attr-defined]
    assert second.engines["two_tower"].catalogue.ids == newer.catalogue.ids


def test_the_diversity_of_a_variant_applies_unless_the_request_sets_one() -> None:
    live = _live()
    variant = _variant(live, diversity=1.0)
    state = world.user("pay", "bank", events=7)
    plain, diverse = (Request(limit=4, diversity=share) for share in (0.0, 1.0))
    assert variant.recommend(state, Request(limit=4)) == live.recommend(state, diverse)
    assert variant.recommend(state, plain) == live.recommend(state, Request(limit=4))
