"""Ids in the query string instead of the path."""

from __future__ import annotations

import pytest

from core.settings import Settings
from tests.api.world import KEY, Client, publish, serving


def test_every_read_accepts_its_ids_in_the_query_string(api: Client) -> None:
    for by_query, by_path in (
        ("/api/recommendations/-?user_id=warm&limit=3", "/api/recommendations/warm?limit=3"),
        ("/api/items/-/similar?item_id=pay", "/api/items/pay/similar"),
        ("/api/explain/-/-?item_id=pay&user_id=warm", "/api/explain/warm/pay"),
        ("/api/explain/-/pay?user_id=warm", "/api/explain/warm/pay"),
        ("/api/users/-?user_id=warm", "/api/users/warm"),
        ("/api/users/-/similar?user_id=warm&limit=2", "/api/users/warm/similar?limit=2"),
    ):
        answers = [api.get(path).json() for path in (by_query, by_path)]
        for answer in answers:
            answer.pop("recommendation_id", None)
        assert answers[0] == answers[1], by_query


def test_without_the_parameter_the_placeholder_is_an_id(api: Client) -> None:
    assert api.get("/api/users/-").json()["user_id"] == "-"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/api/users/42?user_id=42", "both have user_id"),
        ("/api/users/-?user_id=1&user_id=2", "user_id occurs twice"),
        ("/api/users/-?user_id=", "user_id"),
        ("/api/users/-?user_id=%00", "user_id"),
        ("/api/users/-?item_id=pay", "unknown parameter 'item_id'"),
        ("/api/popular?user_id=1", "unknown parameter 'user_id'"),
    ],
)
def test_an_ambiguous_or_invalid_id_is_refused_with_its_name(
    api: Client, path: str, names: str
) -> None:
    answer = api.get(path)
    assert answer.status_code == 422
    assert names in answer.json()["detail"]


def test_entries_are_written_and_deleted_by_the_id_in_the_query_string(
    settings: Settings, redis: object, broker: object
) -> None:
    publish(settings)
    with serving(settings) as client:
        headers = {"x-api-key": KEY}
        for path in ("/api/users/-?user_id=a%2Fb", "/api/items/-?item_id=a%2Fb"):
            body = {"item_type": "startup"} if "items" in path else {}
            put = client.request("PUT", path, headers=headers, json=body)
            assert (put.status_code, put.json().get("id")) == (202, "a/b")
            assert client.request("DELETE", path, headers=headers).json()["id"] == "a/b"
