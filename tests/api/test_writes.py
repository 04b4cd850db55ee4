"""Writes over HTTP: events, items and users in the log, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from api.schemas.answers import Accepted, Error, EventResults
from core.codec import decode_interaction
from core.settings import Settings
from store.log.client import consumer_config
from tests.api.world import Client, checked, event, serving, until_missing


@pytest.fixture
def api(settings: Settings, redis: object, broker: object) -> Iterator[Client]:
    with serving(settings) as client:
        until_missing(client, "als", "content", "popular", "model")  # no bundle is needed to write
        yield client


def logged(settings: Settings, token: str) -> tuple[bytes | None, bytes | None]:
    """Key and value of the record that a token names."""
    topic, partition, offset = token.rsplit(":", 2)
    consumer = Consumer(consumer_config(settings, "reader-of-tokens"))
    try:
        consumer.assign([TopicPartition(topic, int(partition), int(offset))])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        assert message.offset() == int(offset)
        return message.key(), message.value()
    finally:
        consumer.close()


@pytest.mark.process
def test_an_event_is_in_the_log_at_the_place_of_its_token(api: Client, settings: Settings) -> None:
    sent = event(
        value=2.5, use_case="developer_startup", context={"page": "home", "ünï": [1, None]}
    )
    answer = api.write("POST", "/api/events", sent)
    assert answer.status_code == 202
    checked(answer.json(), EventResults)
    result = answer.json()["results"][0]
    key, value = logged(settings, result["token"])
    stored = decode_interaction(value, time.time(), settings.use_cases)
    assert key == b"42"
    assert (stored.event_id, stored.item_id, stored.value, stored.use_case) == (
        "e1",
        "pay",
        2.5,
        "developer_startup",
    )
    assert b'"page"' in bytes(stored.context)


@pytest.mark.parametrize(
    "text", ["2025-10-09T08:53:20Z", "2025-10-09 10:53:20+02:00", "2025-10-09T08:53:20"]
)
def test_a_time_may_be_iso_8601_text_and_the_log_has_seconds(
    api: Client, settings: Settings, text: str
) -> None:
    answer = api.write("POST", "/api/events", event(timestamp=text))
    assert answer.status_code == 202, answer.text
    _, value = logged(settings, answer.json()["results"][0]["token"])
    assert decode_interaction(value, time.time(), settings.use_cases).timestamp == 1_760_000_000


def test_a_day_without_a_time_is_refused_with_the_form_that_is_accepted(api: Client) -> None:
    result = api.write("POST", "/api/events", event(timestamp="2025-10-09")).json()["results"][0]
    assert result["error"] == "bad_field"
    assert "timestamp must be a number, this event has the text '2025-10-09'" in result["detail"]
    assert "ISO 8601 text, such as 2027-01-15T08:00:00Z" in result["detail"]


def test_each_of_many_events_is_accepted_or_rejected_by_itself(api: Client) -> None:
    good, bad = event("good"), event("bad", event_type="unheard_of")
    answer = api.write(
        "POST",
        "/api/events",
        [good, bad, {"event_id": "x"}, 7, event("late", timestamp=time.time() + 1e6)],
    )
    body = answer.json()
    checked(body, EventResults)
    assert (answer.status_code, body["accepted"], body["rejected"]) == (207, 1, 4)
    assert [result.get("error") for result in body["results"]] == [
        None,
        "unknown_event_type",
        "bad_field",
        "bad_field",
        "bad_timestamp",
    ]
    assert [("token" in result) for result in body["results"]] == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "not_json"),
        (b"", 400, "empty"),
        (b"\xff", 400, "not_json"),
        (b"[{]", 400, "not_json"),
        (b"[" * 5000, 400, "not_json"),
        (b"[]", 422, "bad_count"),
        (b"[" + b",".join([b"{}"] * 1001) + b"]", 422, "bad_count"),
        (b"3", 422, "bad_field"),
        (b"null", 422, "bad_field"),
        (b"{}", 422, "bad_field"),
        (b"[1]", 422, "bad_field"),
    ],
)
def test_an_invalid_event_is_refused_with_the_cause(
    api: Client, body: bytes, status: int, error: str
) -> None:
    answer = api.write("POST", "/api/events", body)
    code = answer.json().get("error") or answer.json()["results"][0]["error"]
    assert (answer.status_code, code) == (status, error)


@pytest.mark.parametrize(
    "fields",
    [
        {"event_id": ""},
        {"user_id": "x" * 257},
        {"item_id": "\x00"},
        {"value": -1},
        {"value": 1e9},
        {"timestamp": 1.7e12},
        {"timestamp": -1},
        {"use_case": "none"},
        {"schema_version": 9},
        {"context": [1]},
        {"event_type": 3},
        {"user_id": None},
    ],
)
def test_events_over_http_obey_the_contract_of_the_log(
    api: Client, fields: dict[str, object]
) -> None:
    assert api.write("POST", "/api/events", event(**fields)).status_code == 422


@pytest.mark.process
def test_items_and_users_are_put_and_deleted_by_their_topics(
    api: Client, settings: Settings
) -> None:
    put = api.write(
        "PUT",
        "/api/items/a%2Fb",
        {"item_type": "startup", "title": "Slash", "attributes": {"stage": "seed"}},
    )
    checked(put.json(), Accepted)
    assert (put.status_code, put.json()["id"]) == (202, "a/b")
    key, value = logged(settings, put.json()["token"])
    assert (key, b'"item_id":"a/b"' in (value or b"")) == (b"a/b", True)
    assert logged(settings, api.write("DELETE", "/api/items/a%2Fb").json()["token"]) == (
        b"a/b",
        None,
    )
    user = api.write("PUT", "/api/users/42", {"user_id": "42", "interests": ["fintech"]}).json()[
        "token"
    ]
    assert user.startswith(settings.users_topic)
    assert logged(settings, api.write("DELETE", "/api/users/42").json()["token"]) == (b"42", None)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/items/x", {"title": "no type"}, 422),
        ("/api/items/x", {"item_type": "s", "item_id": "y"}, 422),
        ("/api/items/x", b"{", 400),
        ("/api/items/x", [1], 422),
        ("/api/items/x", {"item_type": "s", "tags": "one"}, 422),
        ("/api/users/x", {"interests": [1]}, 422),
        ("/api/items/%00", {"item_type": "s"}, 422),
        ("/api/items/x", {"item_type": "s", "text": "t" * 300_000}, 413),
        ("/api/users/x", {"user_id": None}, 422),
    ],
)
def test_a_wrong_item_or_user_is_refused(api: Client, path: str, body: object, status: int) -> None:
    answer = api.write("PUT", path, body)
    assert answer.status_code == status
    checked(answer.json(), Error)
