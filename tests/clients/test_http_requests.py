"""What the HTTP clients send: keys, paths, events in parts, and what they refuse to send."""

from __future__ import annotations

import msgspec
import pytest

from core.settings import Settings
from eddyline_client import (
    Event,
    EventResult,
    EventsRejected,
    InvalidInput,
    Item,
    RequestRejected,
    Unavailable,
)
from eddyline_client.exchange import MAX_BODY_BYTES, MAX_EVENTS
from tests.clients.support import (
    BUSY,
    EMPTY,
    QUICK,
    Reply,
    client,
    each_client,
    like,
    scripted,
)


@each_client
def test_key_and_prefix_are_in_every_request_and_ids_stay_one_part_of_the_path(kind: str) -> None:
    with scripted([Reply(202, b'{"id":"x","token":"users:0:1"}')]) as (url, requests):
        with client(kind, f"{url}/shop/v1/", api_key="schlüssel") as connected:
            for user_id in ("a/b", "..", "50%", "%2F", "a?b#c", "ü"):
                connected.delete_user(user_id)
        assert [request.path.removeprefix("/shop/v1/api/users/") for request in requests] == [
            "a%2Fb",
            "%2E%2E",
            "50%25",
            "%252F",
            "a%3Fb%23c",
            "%C3%BC",
        ]
        assert {
            request.headers["x-api-key"].encode("latin-1").decode() for request in requests
        } == {"schlüssel"}
        assert {request.headers["user-agent"].partition("/")[0] for request in requests} == {
            "eddyline-client"
        }


def results(*outcomes: str | None) -> bytes:
    """An answer to POST /api/events: for each event a token, or this error."""
    rows = [
        EventResult(
            index=place,
            event_id=str(place),
            token=None if error else f"interactions:0:{place}",
            error=error,
            detail="why",
        )
        for place, error in enumerate(outcomes)
    ]
    accepted = sum(row.token is not None for row in rows)
    return msgspec.json.encode(
        {"accepted": accepted, "rejected": len(rows) - accepted, "results": rows}
    )


@each_client
def test_after_a_partial_success_only_the_rest_is_sent_again(kind: str) -> None:
    events = [like(event_id=str(number)) for number in range(3)]
    partly = Reply(207, results(None, "log_unavailable", "bad_value"))
    with (
        scripted([partly, Reply(202, results(None))]) as (url, requests),
        client(kind, url, retries=QUICK) as connected,
    ):
        with pytest.raises(EventsRejected) as rejected:
            connected.send_events(events)
        assert [(result.index, result.error) for result in rejected.value.results.results] == [
            (0, None),
            (1, None),
            (2, "bad_value"),
        ]
        assert [event["event_id"] for event in msgspec.json.decode(requests[1].body)] == ["1"]


@each_client
def test_an_error_during_sending_contains_the_accepted_events(kind: str) -> None:
    first = Reply(202, results(*[None] * MAX_EVENTS))
    with scripted([first, BUSY]) as (url, requests), client(kind, url, retries=QUICK) as connected:
        with pytest.raises(Unavailable) as stopped:
            connected.send_events(
                like(event_id=str(number)) for number in range(2 * MAX_EVENTS + 5)
            )
        assert len(requests) == 1 + QUICK.attempts
    assert stopped.value.results is not None
    assert (stopped.value.results.accepted, stopped.value.results.rejected) == (
        MAX_EVENTS,
        MAX_EVENTS,
    ), "the last five were never taken"
    assert {result.error for result in stopped.value.results.results[MAX_EVENTS:]} == {"not_sent"}


@each_client
def test_an_invalid_event_stops_sending_and_the_error_contains_the_accepted_events(
    kind: str,
) -> None:
    first = Reply(202, results(*[None] * MAX_EVENTS))
    with scripted([first]) as (url, requests), client(kind, url, retries=QUICK) as connected:
        with pytest.raises(InvalidInput) as stopped:
            connected.send_events([*(like() for _ in range(MAX_EVENTS)), like(), like(user_id="")])
        assert len(requests) == 1
    assert stopped.value.results is not None
    assert stopped.value.results.accepted == MAX_EVENTS


def test_requests_stay_below_the_size_limit_of_the_server() -> None:
    large = [like(event_id=str(number), context={"text": "x" * 60_000}) for number in range(40)]
    with (
        scripted([Reply(400, b'{"error":"not_json","detail":"-"}')]) as (url, requests),
        client("blocking", url) as connected,
    ):
        with pytest.raises(RequestRejected):
            connected.send_events(large)
        assert 0.9 * MAX_BODY_BYTES < len(requests[0].body) <= MAX_BODY_BYTES
    assert Settings(_env_file=None).api_max_body_bytes >= MAX_BODY_BYTES


@each_client
def test_invalid_input_is_refused_before_it_is_sent(kind: str) -> None:
    with scripted([Reply(200, EMPTY)]) as (url, requests), client(kind, url) as connected:
        for wrong in (
            lambda: connected.recommend(""),
            lambda: connected.explain("42", "a\nb"),
            lambda: connected.delete_item("x" * 300),
            lambda: connected.popular(category=[1]),
            lambda: connected.upsert_item(Item(item_id="i", item_type="")),
            lambda: connected.send_events(like(timestamp=1_790_000_000_000.0)),
            lambda: connected.send_events(Event(user_id=42, item_id="pay", event_type="like")),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidInput):
                wrong()
        assert not requests


@each_client
@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host", "http://", "http://host/?a=1", "http://host:port"]
)
def test_an_invalid_base_url_is_refused(kind: str, url: str) -> None:
    with pytest.raises(InvalidInput, match="base_url"), client(kind, url):
        pass


@each_client
def test_an_invalid_key_is_refused_and_not_shown(kind: str) -> None:
    with (
        pytest.raises(InvalidInput, match="api_key") as refused,
        client(kind, "http://host", api_key="secret\r\nx: y"),
    ):
        pass
    assert "secret" not in str(refused.value)
