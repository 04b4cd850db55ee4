"""Reads: the engine that answers, filters, parameters, ids, similar items, explanations, users."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from redis import Redis

from api.schemas.answers import Error, ItemList, UserAnswer
from core.types import Item, Recommendations
from engines.explain import Explanation
from tests.api.world import (
    FOR_DEVELOPER,
    Client,
    checked,
    remember,
    shown,
    store_items,
)
from tests.engines.world import ITEMS
from tests.support import eventually

ODD_IDS = [
    "a/b",
    "user:1",
    "ünïcode-ж-漢",
    "50%",
    "a b+c",
    "..",
    "user%3A1",
    "x?y#z",
    "similar",
    "q&r=s",
]


def test_the_number_of_interactions_decides_the_engine(
    api: Client,
) -> None:
    answers = {
        name: api.get(f"{FOR_DEVELOPER}/{name}?limit=2").json() for name in ("cold", "warm", "hot")
    }
    assert {name: answer["method_used"] for name, answer in answers.items()} == {
        "cold": "content_based",
        "warm": "als",
        "hot": "als",
    }
    assert {name: answer["interaction_count"] for name, answer in answers.items()} == {
        "cold": 1,
        "warm": 7,
        "hot": 25,
    }
    assert answers["warm"]["fallbacks"] == []
    assert [fallback["engine"] for fallback in answers["hot"]["fallbacks"]] == ["ensemble"]
    for answer in answers.values():
        checked(answer, Recommendations)
        assert [line["rank"] for line in answer["recommendations"]] == [1, 2]
        assert all(
            line["reasons"] and line["metadata"]["item_type"] == "startup"
            for line in answer["recommendations"]
        )
        assert answer["model_version"]


def test_an_unknown_user_gets_popular_items_of_the_use_case_and_never_a_404(api: Client) -> None:
    developer, investor = (
        api.get(f"{FOR_DEVELOPER}/nobody"),
        api.get("/api/recommendations/startups/for-investor/nobody"),
    )
    assert (developer.json()["method_used"], developer.json()["interaction_count"]) == (
        "popular",
        0,
    )
    assert (shown(developer)[0], shown(investor)[0]) == ("pill", "gene")


def test_an_unknown_use_case_is_a_404_that_names_the_configured_ones(api: Client) -> None:
    answer = api.get("/api/recommendations/boats/for-pirate/42")
    assert answer.status_code == 404
    assert answer.json()["error"] == "unknown_use_case"
    assert "startups/for-developer" in answer.json()["detail"]
    assert "startups/for-investor" in answer.json()["detail"]


def test_without_a_use_case_items_of_every_type_are_shown(api: Client) -> None:
    assert "medpay" not in shown(api.get(f"{FOR_DEVELOPER}/warm?limit=8"))
    assert "medpay" in shown(api.get("/api/recommendations/warm?limit=8"))
    assert shown(api.get("/api/recommendations/warm?limit=8&use_case=developer_startup")) == shown(
        api.get(f"{FOR_DEVELOPER}/warm?limit=8")
    )


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("category=health", {"pill", "gene"}),
        ("category=health,fintech", {"coin", "pill", "gene", "medpay"}),
        ("category=health&category=fintech", {"coin", "pill", "gene", "medpay"}),
        ("item_type=scaleup", {"medpay"}),
        ("attr.stage=seed", {"coin", "pill"}),
        ("attr.stage=seed,growth", {"coin", "pill", "gene"}),
        ("attr.founded.min=2015", {"coin", "gene"}),
        ("attr.founded.min=2015&attr.founded.max=2020", {"gene"}),
        ("attr.founded=2015", {"gene"}),
        ("attr.remote=true", {"coin"}),
        ("attr.markets=us", {"medpay"}),
        ("category=fintech&include_seen=true", {"pay", "bank", "coin", "medpay"}),
        ("category=health&available_only=false", {"pill", "gene", "care", "medpay"}),
        ("category=health&exclude=pill,gene", {"medpay"}),
        ("category=health&exclude=pill&exclude=gene", {"medpay"}),
    ],
)
def test_filters_select_items_by_category_type_attribute_and_id(
    api: Client, query: str, items: set[str]
) -> None:
    expected = items | ({"medpay"} if query == "category=health" else set())
    assert set(shown(api.get(f"/api/recommendations/warm?limit=50&{query}"))) == expected


def test_limit_is_the_page_size_and_has_a_maximum(api: Client) -> None:
    assert len(shown(api.get("/api/recommendations/warm?limit=1"))) == 1
    assert api.get("/api/recommendations/warm?limit=100").status_code == 200
    for wrong in ("0", "101", "-1", "ten", "1.5", "", "٣", "9" * 50):
        answer = api.get(f"/api/recommendations/warm?limit={wrong}")
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_parameter")
        assert "limit" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limt=3", "limt"),
        ("engine=magic", "content_based"),
        ("include_seen=perhaps", "include_seen"),
        ("attr.founded.min=old", "attr.founded.min"),
        ("attr.founded.max=nan", "attr.founded.max"),
        ("attr.=x", "attr."),
        ("limit=1&limit=2", "limit"),
        ("use_case=none", "developer_startup"),
        ("category=%ff", "UTF-8"),
        ("category=", "category"),
        ("exclude=" + ",".join(map(str, range(1500))), "exclude"),
    ],
)
def test_a_wrong_parameter_is_a_422_that_names_it(api: Client, query: str, named: str) -> None:
    answer = api.get(f"/api/recommendations/warm?{query}")
    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    checked(answer.json(), Error)


def test_a_request_can_name_an_engine(api: Client) -> None:
    for engine in ("als", "content_based", "popular"):
        assert (
            api.get(f"/api/recommendations/warm?engine={engine}&limit=1").json()["method_used"]
            == engine
        )
    answer = api.get("/api/recommendations/warm?engine=two_tower&limit=1").json()
    assert (answer["method_used"], [fallback["engine"] for fallback in answer["fallbacks"]]) == (
        "content_based",
        ["two_tower"],
    )


@pytest.mark.parametrize("odd", ODD_IDS)
def test_ids_of_any_kind_work_when_they_are_percent_encoded(
    api: Client, redis: Redis, odd: str
) -> None:
    remember(redis, odd, "pay", "bank", events=7)
    path = quote(odd, safe="")
    if odd == "..":  # every client folds a bare `..` into the path before it is sent
        path = "%2E%2E%2F"[:-3] + "%2F"
        remember(redis, "../", "pay", "bank", events=7)
        odd = "../"
    answer = api.get(f"{FOR_DEVELOPER}/{path}").json()
    assert (answer["user_id"], answer["interaction_count"], answer["method_used"]) == (
        odd,
        7,
        "als",
    )
    assert api.get(f"/api/users/{path}").json()["interaction_count"] == 7
    store_items(redis, *ITEMS, Item(item_id=odd, item_type="startup", categories=["fintech"]))
    eventually(
        lambda: odd in shown(api.get("/api/popular?limit=50")), "the odd item is in the catalogue"
    )
    assert api.get(f"/api/explain/{path}/{path}").json()["item_id"] == odd
    assert "pay" in shown(api.get(f"/api/items/{path}/similar?limit=50"))
    assert odd not in shown(api.get(f"/api/popular?limit=50&exclude={path}"))


@pytest.mark.parametrize(
    "wrong", ["%00", "a%0Ab", "%ED%A0%80", "%FF", "%20", "x" * 257, "%C3%BC" * 129]
)
def test_an_id_outside_the_contract_is_a_422(api: Client, wrong: str) -> None:
    for path in (
        f"{FOR_DEVELOPER}/{wrong}",
        f"/api/users/{wrong}",
        f"/api/items/{wrong}/similar",
        f"/api/explain/u/{wrong}",
    ):
        assert (api.get(path).status_code, api.get(path).json()["error"]) == (422, "bad_id")


def test_similar_items_and_popular_items(api: Client) -> None:
    similar = api.get("/api/items/pay/similar?limit=2")
    checked(similar.json(), ItemList)
    assert set(shown(similar)) == {"bank", "coin"}
    popular = api.get("/api/popular?limit=2&use_case=investor_startup")
    checked(popular.json(), ItemList)
    assert (shown(popular)[0], popular.json()["method_used"]) == ("gene", "popular")
    assert shown(api.get("/api/items/no-such-item/similar")) == []


def test_explain_says_why_an_item_is_shown_and_which_filter_removed_it(api: Client) -> None:
    why = api.get("/api/explain/warm/coin?use_case=developer_startup&limit=5").json()
    checked(why, Explanation)
    assert (why["shown"], why["rank"], why["removed_by"], why["method_used"]) == (
        True,
        1,
        [],
        "als",
    )
    als = next(view for view in why["engines"] if view["engine"] == "als")
    assert sum(reason["contribution"] for reason in als["contributions"]) == pytest.approx(
        als["score"], rel=1e-4
    )
    removed = {
        item: api.get(f"/api/explain/warm/{item}?use_case=developer_startup&exclude=gene").json()
        for item in ("pay", "care", "medpay", "gene", "nothing")
    }
    assert not any(answer["shown"] for answer in removed.values())
    for item, word in {
        "pay": "interacted",
        "care": "available",
        "medpay": "scaleup",
        "gene": "excludes",
        "nothing": "knows",
    }.items():
        assert any(word in reason for reason in removed[item]["removed_by"]), removed[item][
            "removed_by"
        ]


def test_the_stored_state_of_a_user_is_shown(api: Client, redis: Redis) -> None:
    warm = api.get("/api/users/warm").json()
    checked(warm, UserAnswer)
    assert (warm["known"], warm["interaction_count"], warm["counts"], warm["engine"]) == (
        True,
        7,
        {"like": 7},
        "als",
    )
    assert [line["item_id"] for line in warm["history"]] == ["pay", "bank"]
    assert api.get("/api/users/cold").json()["profile"]["interests"] == ["health"]
    hot = api.get("/api/users/hot").json()
    assert hot["engine"] == "als"
    assert "ensemble" in hot["why"]
    unknown = api.get("/api/users/nobody")
    assert (unknown.status_code, unknown.json()["known"], unknown.json()["engine"]) == (
        200,
        False,
        "content_based",
    )
