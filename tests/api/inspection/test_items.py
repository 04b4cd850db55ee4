"""Looking into one item: it is found by text, its activity is what ingest counted, and the users
who would like it have not had it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from redis import Redis

from api.schemas.answers import ItemPage
from api.schemas.item_details import ItemActivity, ItemUsers, UserMatches
from core.settings import Settings
from core.types import Item
from engines.catalogue import Catalogue
from engines.selection.search import search
from store.state import keys
from store.state.entities import trending
from tests.api.trained_users import PEOPLE, publish_users
from tests.api.world import Client, checked, remember, serving


@pytest.fixture
def trained(settings: Settings, redis: Redis) -> Iterator[Client]:
    """An API whose bundle has trained users; all but `blank` liked bank and pay."""
    publish_users(settings, PEOPLE)
    for name in PEOPLE:
        remember(redis, name, "bank", "pay")
    with serving(settings) as client:
        yield client


SHELF = [
    Item(item_id="b-1", item_type="book", title="Kafka on the Shore", tags=["novel"]),
    Item(item_id="b-2", item_type="book", title="Streams with Kafka", categories=["computing"]),
    Item(item_id="b-3", item_type="book", title="Nothing", text="about Apache Kafka"),
    Item(item_id="kafka", item_type="author", title="Franz"),
    Item(item_id="b-4", item_type="book", title="Gone", available=False, attributes={"year": 1915}),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("KAFKA", ["kafka", "b-1", "b-2", "b-3"]),
        ("kafka streams", ["b-2"]),
        ("  kafka   novel ", ["b-1"]),
        ("computing", ["b-2"]),
        ("1915", ["b-4"]),
        ("kafka zzz", []),
        ("", []),
    ],
)
def test_a_search_finds_items_with_all_words_best_first(text: str, expected: list[str]) -> None:
    catalogue = Catalogue.of(SHELF, bare_ids=["kafka-without-entry"])
    assert [item.item_id for item in search(catalogue, text, 10)] == expected
    assert [item.item_id for item in search(catalogue, text, 1)] == expected[:1]


def test_items_are_searched_over_http(api: Client) -> None:
    page = checked(api.get("/api/items?q=pay&limit=5").json(), ItemPage)
    assert page.items[0].item_id == "pay"
    assert page.cursor is None
    assert api.get("/api/items?q=pay&limit=101").status_code == 422
    assert api.get("/api/items?q=pay&cursor=0").status_code == 422


def test_the_activity_is_the_weight_that_ingest_counted_by_time(api: Client, redis: Redis) -> None:
    now = time.time()
    for tier, at, weight in ((2, now, 3.0), (1, now - 2 * 86_400, 5.0)):
        for key in trending.buckets("developer_startup", at, tier, now):
            redis.zadd(key, {"pay": weight}, incr=True)
    activity = checked(api.get("/api/items/pay/activity").json(), ItemActivity)
    hour, week = activity.hour["developer_startup"], activity.week["developer_startup"]
    assert (sum(hour.weights), hour.seconds) == (3.0, 300)
    assert (sum(week.weights), week.seconds, len(week.weights)) == (8.0, 3600, 169)
    at = next(index for index, weight in enumerate(week.weights) if weight == 5.0)
    assert week.start + at * week.seconds <= now - 2 * 86_400 < week.start + (at + 1) * 3600
    assert activity.popularity == {"developer_startup": 0.2, "unlabelled": 1.0}, (
        "1 is the most popular item"
    )
    unknown = checked(api.get("/api/items/nothing/activity").json(), ItemActivity)
    assert (unknown.hour, unknown.week, unknown.popularity) == ({}, {}, {})
    assert api.get("/api/items/pay/activity?window=hour").status_code == 422


def test_the_users_who_would_like_an_item_have_not_had_it(trained: Client) -> None:
    answer = checked(trained.get("/api/items/coin/users").json(), ItemUsers)
    assert [user.user_id for user in answer.users][:2] == ["fin-too", "fin"]
    assert "against" not in {user.user_id for user in answer.users}
    scores = [user.score for user in answer.users]
    assert scores == sorted(scores, reverse=True)
    shown = trained.get("/api/recommendations/fin?limit=100").json()["recommendations"]
    ranks = {line["item_id"]: line["rank"] for line in shown}
    assert answer.users[1].shown_at == ranks["coin"], "the rank is that of the user's answer"
    liked_by_all = checked(trained.get("/api/items/pay/users").json(), ItemUsers)
    assert liked_by_all.users == []
    assert "each has an event with it" in (liked_by_all.cause or "")
    one = checked(trained.get("/api/items/coin/users?limit=1").json(), ItemUsers)
    assert [user.user_id for user in one.users] == ["fin-too"]
    assert trained.get("/api/items/coin/users?limit=21").status_code == 422


def test_users_without_the_item_are_found_behind_many_who_had_it(
    settings: Settings, redis: Redis
) -> None:
    people = {f"had-{number}": (9.0, 1.0) for number in range(30)} | {"new": (1.0, 1.0)}
    publish_users(settings, people)
    for name in people:
        remember(redis, name, *(["bank"] if name == "new" else ["bank", "coin"]))
    with serving(settings) as client:
        answer = checked(client.get("/api/items/coin/users?limit=1").json(), ItemUsers)
        assert [user.user_id for user in answer.users] == ["new"]


def test_an_item_that_no_vector_points_to_has_a_cause(settings: Settings, redis: Redis) -> None:
    publish_users(settings, {"against": (-1.0, 0.0)})
    with serving(settings) as client:
        answer = checked(client.get("/api/items/coin/users").json(), ItemUsers)
        assert (answer.users, answer.cause) == ([], "no user's vector scores coin above 0")


def test_deleted_users_are_left_out_and_an_unknown_item_has_a_cause(
    trained: Client, redis: Redis
) -> None:
    redis.delete(*keys.ONLY.all_of_user("fin-too"))
    answer = checked(trained.get("/api/items/coin/users").json(), ItemUsers)
    assert "fin-too" not in {user.user_id for user in answer.users}
    unknown = checked(trained.get("/api/items/nothing/users").json(), ItemUsers)
    assert (unknown.users, unknown.cause) == ([], "nothing is not in the ALS model")


def test_users_are_searched_by_a_part_of_their_id(trained: Client) -> None:
    def matches(query: str) -> list[str]:
        return checked(trained.get(f"/api/users?{query}").json(), UserMatches).users

    assert matches("q=fin") == ["fin", "fin-too"]
    assert matches("q=t") == ["both", "health", "against", "fin-too"], "shorter ids first"
    assert matches("q=h") == ["health", "both"], "first those that begin with it"
    assert matches("q=fin&limit=1") == ["fin"]
    assert matches("q=zzz") == []
    assert trained.get("/api/users").status_code == 422


def test_a_bundle_without_users_says_why_there_are_none(settings: Settings, redis: Redis) -> None:
    publish_users(settings, None)
    with serving(settings) as client:
        for path in ("/api/users?q=a", "/api/items/coin/users"):
            assert "als_user_mapping.json" in client.get(path).json()["cause"]
