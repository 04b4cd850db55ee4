"""People read in one line what users get beside the best engine, and what would change it."""

from __future__ import annotations

import msgspec
import pytest

from models.router import served
from models.router.served import Served
from models.router.thresholds import PreferredThresholds
from tests.models.world import WARM

HOT = msgspec.structs.replace(
    WARM,
    segment="hot",
    users=461,
    fixed=0.202,
    auto=0.201,
    best_engine="popular",
    best=0.185,
    low=0.17,
    high=0.2,
)
THRESHOLDS = PreferredThresholds(
    preferred=(1, 3), configured=(5, 20), gain=0.4, low=0.31, high=0.48, users=581
)
SERVED = Served(router="fixed", segments=[WARM, HOT], thresholds=THRESHOLDS)


def test_the_summary_compares_each_segment_and_names_the_setting_that_changes_it() -> None:
    assert served.summary(SERVED) == (
        "Warm users get NDCG@10 .081, 12% below als alone (.092 [.085, .099]); hot users "
        ".202, 9% above popular alone (.185 [.170, .200]). ROUTER=auto (1 and 3 instead of 5 and "
        "20) would give warm users .091."
    )


def test_with_router_auto_the_summary_says_what_users_get_then() -> None:
    assert served.summary(SERVED, "auto") == (
        "Warm users get NDCG@10 .091, 1% below als alone (.092 [.085, .099]), within its "
        "interval; hot users .201, 9% above popular alone (.185 [.170, .200]). ROUTER=auto routes "
        "by 1 and 3 instead of 5 and 20."
    )


def test_no_setting_is_named_when_a_gain_may_be_chance() -> None:
    chance = msgspec.structs.replace(THRESHOLDS, low=-0.02)
    text = served.summary(msgspec.structs.replace(SERVED, thresholds=chance))
    assert text.endswith("No other thresholds are better by more than chance.")


def test_segments_of_few_users_are_left_out() -> None:
    few = msgspec.structs.replace(WARM, users=served.LEAST_USERS - 1)
    text = served.summary(msgspec.structs.replace(SERVED, segments=[few, HOT]))
    assert text.startswith("Hot users get NDCG@10 .202")
    assert "arm users get" not in text
    nobody = msgspec.structs.replace(SERVED, segments=[few])
    assert served.summary(nobody) == served.summary(None)
    assert served.summary(None).startswith("Too few users were judged")


@pytest.mark.parametrize("metrics", [{}, {"served": None}, {"served": {"segments": "all"}}])
def test_a_manifest_of_another_release_has_nothing_to_say(metrics: dict[str, object]) -> None:
    assert served.of_manifest(metrics) is None


def test_a_manifest_says_what_its_retrain_measured() -> None:
    assert served.of_manifest({"served": msgspec.to_builtins(SERVED)}) == SERVED
