"""ROUTER=auto routes by the thresholds that a bundle's users prefer, where they are better."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from core.settings import Settings
from core.types import Request
from engines import builder, router
from engines.explain import explain
from engines.recommender import Recommender
from models.router.thresholds import NEVER, PreferredThresholds
from tests.engines import world

BETTER = PreferredThresholds(
    preferred=(1, 3), configured=(5, 20), gain=0.4, low=0.31, high=0.48, users=250
)
CHANCE = msgspec.structs.replace(BETTER, low=-0.01)


def with_thresholds(thresholds: PreferredThresholds | None, **settings: object) -> Recommender:
    recommender = world.recommender(**settings)
    parts = {**recommender.bundle.parts}
    if thresholds is not None:
        parts["router"] = thresholds
    return replace(recommender, bundle=replace(recommender.bundle, parts=parts))


def engine_of(recommender: Recommender, events: int) -> str:
    answer = recommender.recommend(world.user("pay", events=events), Request(limit=2))
    return answer.method_used


def test_by_default_5_and_20_apply_whatever_the_bundle_prefers() -> None:
    recommender = with_thresholds(BETTER)
    assert engine_of(recommender, 4) == "content_based"
    assert recommender.thresholds.explained == (
        "content_based < 5 <= als < 20 <= ensemble (ROUTER=fixed)"
    )


def test_router_auto_uses_the_bundles_thresholds() -> None:
    recommender = with_thresholds(BETTER, router="auto")
    assert engine_of(recommender, 1) == "als"
    assert recommender.thresholds.explained == (
        "content_based < 1 <= als < 3 <= ensemble (ROUTER=auto: +40.0% NDCG@10 [+31.0%, +48.0%] "
        "for 250 users, beside 5 and 20)"
    )


@pytest.mark.parametrize(
    ("thresholds", "why"),
    [
        (CHANCE, "1 and 3 may be better by chance alone, +40.0% NDCG@10 [-1.0%, +48.0%]"),
        (None, "the bundle has measured no other thresholds"),
        (
            msgspec.structs.replace(BETTER, configured=(2, 4)),
            "the bundle compared others with 2 and 4 only",
        ),
        (
            msgspec.structs.replace(BETTER, preferred=(5, 20)),
            "no others did better for 250 users",
        ),
    ],
    ids=["chance", "nothing", "others", "same"],
)
def test_router_auto_falls_back_to_5_and_20_and_says_why(
    thresholds: PreferredThresholds | None, why: str
) -> None:
    recommender = with_thresholds(thresholds, router="auto")
    assert engine_of(recommender, 4) == "content_based"
    limits = recommender.thresholds
    assert (limits.cold, limits.warm) == (5, 20)
    assert limits.why.startswith(f"ROUTER=auto: {why}")


def test_an_explanation_says_which_thresholds_apply_and_why() -> None:
    recommender = with_thresholds(BETTER, router="auto")
    explanation = explain(recommender, world.user("pay", events=1), "bank", Request())
    assert explanation.routing.startswith("1 interactions: content_based < 1 <= als < 3 <= ")
    assert "ROUTER=auto: +40.0%" in explanation.routing


def test_a_threshold_that_nobody_reaches_is_no_part_of_the_route() -> None:
    assert str(router.Thresholds(5, NEVER, "")) == "content_based < 5 <= als"
    assert str(router.Thresholds(NEVER, NEVER, "")) == "content_based"


def test_thresholds_of_an_experiments_variant_win_over_the_bundles() -> None:
    automatic = Settings(router="auto")
    control = automatic.with_overrides({"cold_start_threshold": 5})
    assert control.router == "fixed"
    assert automatic.with_overrides({"diversity": 0.3}).router == "auto"
    recommender = with_thresholds(BETTER, router="auto")
    variant = builder.with_settings(recommender, control)
    assert (engine_of(recommender, 4), engine_of(variant, 4)) == ("als", "content_based")


def test_a_variant_may_try_router_auto() -> None:
    recommender = with_thresholds(BETTER)
    variant = builder.with_settings(
        recommender, recommender.settings.with_overrides({"router": "auto"})
    )
    assert engine_of(variant, 1) == "als"
