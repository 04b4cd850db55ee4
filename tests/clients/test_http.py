"""The blocking and the asynchronous HTTP client: every call, retries, errors, on real sockets."""

from __future__ import annotations

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from core.settings import Settings
from eddyline_client import (
    Event,
    EventResult,
    EventsRejected,
    InvalidInput,
    Item,
    NotFound,
    RequestRejected,
    RetryPolicy,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    User,
)
from eddyline_client.exchange import MAX_BODY_BYTES, MAX_EVENTS
from eddyline_client.retries import Backoff
from testing.process import ROOT
from tests.api.world import KEY, publish, remember
from tests.clients.support import (
    KINDS,
    Client,
    Reply,
    answers,
    client,
    each_client,
    free_port,
    scripted,
    serve_world,
)
from tests.conftest import Spawn
from tests.support import eventually

QUICK = RetryPolicy(attempts=4, first_wait_s=0.01, longest_wait_s=0.02)
EMPTY = b'{"method_used":"popular","fallbacks":[],"model_version":null,"degraded":false,"recommendations":[]}'
BUSY = Reply(503, b'{"error":"log_unavailable","detail":"the broker is away"}')


def like(user_id: str = "42", item_id: str = "pay", **fields: object) -> Event:
    return Event(user_id=user_id, item_id=item_id, event_type="like", **fields)  # type: ignore[arg-type]


def test_every_call_of_both_clients_against_the_api_and_what_ingest_makes_of_it(
    settings: Settings, redis: Redis, broker: object, spawn: Spawn, backend_python: Path
) -> None:
    url = serve_world(settings, redis, spawn)
    _, example = re.findall(
        r"```python\n(.*?)```", (ROOT / "clients/python/README.md").read_text(), re.DOTALL
    )
    pasted = example.replace("http://127.0.0.1:8000", url).replace(
        'api_key="..."', f'api_key="{KEY}"'
    )
    done = subprocess.run(
        [backend_python, "-I", "-c", pasted], capture_output=True, text=True, env={}, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 "), "the example of the README prints the first recommendation"
    for kind in KINDS:
        with client(kind, url + "/", api_key=KEY, timeout_s=60) as connected:
            _every_call(connected, f"{kind}/ü ..?")
        with client(kind, url, api_key="wrong") as stranger, pytest.raises(Unauthorized) as refused:
            stranger.send_events(like())
        assert (refused.value.status, refused.value.error) == (401, "unauthorized")


def _every_call(connected: Client, user_id: str) -> None:
    """`user_id`: nobody yet, with characters that a path must encode."""
    declared = connected.upsert_user(User(user_id=user_id, interests=["health"]))
    assert declared.id == user_id
    held = connected.user(user_id, after=declared.token)
    assert (held.profile, held.interaction_count, held.stale) == (
        User(user_id=user_id, interests=["health"]),
        0,
        False,
    )
    assert connected.recommend(user_id, limit=1).recommendations[0].method == "content_based"

    events = [like(user_id, item) for item in ("pay", "bank", "pay", "bank", "pay", "bank")]
    sent = connected.send_events(events)
    assert (sent.accepted, sent.rejected) == (6, 0)
    assert [result.event_id for result in sent.results] == [event.event_id for event in events]
    answer = connected.recommend(
        user_id, use_case="developer_startup", limit=2, category="fintech", after=sent.token
    )
    assert (answer.interaction_count, answer.as_of, answer.method_used, answer.stale) == (
        6,
        6,
        "als",
        False,
    )
    assert answer.recommendations[0].item_id == "coin"
    assert answer.recommendations[0].reasons[0].items
    everything = connected.recommend(
        user_id,
        limit=5,
        include_seen=True,
        exclude=["pay", "pill"],
        attr={"stage": ["seed", "growth"], "founded.min": 2015},
        reasons=False,
    )
    assert {line.item_id for line in everything.recommendations} == {"coin", "gene"}
    again = connected.send_events(events[0])
    assert connected.user(user_id, after=again.token).interaction_count == 6, (
        "a repeated event_id counts once"
    )

    explanation = connected.explain(user_id, "coin", use_case="developer_startup")
    assert (explanation.shown, explanation.method_used) == (True, "als")
    assert "als" in {view.engine for view in explanation.engines}
    assert connected.explain(user_id, "pay", use_case="developer_startup").removed_by
    assert connected.similar_items("pay", limit=1).recommendations[0].item_id in ("bank", "coin")
    assert (
        connected.popular(use_case="investor_startup", limit=1, window="day").method_used
        == "popular"
    )
    assert connected.similar_users(user_id, limit=3).cause, (
        "the world's model was not trained on users"
    )

    new = connected.upsert_item(
        Item(
            item_id="new/one",
            item_type="startup",
            categories=["fintech"],
            attributes={"only": True},
        )
    )
    assert new.id == "new/one"
    fresh = connected.recommend(user_id, after=new.token, attr={"only": True})
    assert [line.item_id for line in fresh.recommendations] == ["new/one"]
    gone = connected.delete_item("new/one")
    assert connected.recommend(user_id, after=gone.token, attr={"only": True}).recommendations == []

    forgotten = connected.delete_user(user_id)
    assert connected.user(user_id, after=forgotten.token).known is False

    with pytest.raises(
        EventsRejected,
        match=r"1 of 2 events were rejected; the first is number 1.*unknown_event_type",
    ) as rejected:
        connected.send_events(
            [like(user_id), Event(user_id=user_id, item_id="pay", event_type="teleport")]
        )
    assert [result.error for result in rejected.value.results.results] == [
        None,
        "unknown_event_type",
    ]
    with pytest.raises(EventsRejected, match="1 of 1 events"):
        connected.send_events(Event(user_id=user_id, item_id="pay", event_type="teleport"))
    with pytest.raises(RequestRejected, match="limit must be") as wrong:
        connected.recommend(user_id, limit=1000)
    assert (wrong.value.status, wrong.value.error) == (422, "invalid_parameter")
    many = connected.send_events(
        like(user_id, f"item-{number}") for number in range(MAX_EVENTS + 1)
    )
    assert (many.accepted, [result.index for result in many.results]) == (
        MAX_EVENTS + 1,
        list(range(MAX_EVENTS + 1)),
    )
    assert connected.send_events([]).results == []


def test_a_call_outlives_a_server_that_is_killed_and_comes_back(
    settings: Settings, redis: Redis, broker: object, spawn: Spawn
) -> None:
    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    url = f"http://127.0.0.1:{free_port()}"
    environment = {"API_PORT": url.rpartition(":")[2], "API_KEYS": KEY}
    patient = RetryPolicy(attempts=1000, first_wait_s=0.05, longest_wait_s=0.2, total_s=90)
    server = spawn("api", **environment)
    eventually(lambda: answers(url), "the API answers", 60)
    with (
        client("blocking", url, api_key=KEY, retries=patient) as blocking,
        client("async", url, api_key=KEY, retries=patient) as asynchronous,
        ThreadPoolExecutor(4) as pool,
    ):
        for one in (blocking, asynchronous):  # connections that the kill breaks
            assert one.recommend("warm").method_used == "als"
        server.kill()
        reads = [pool.submit(one.recommend, "warm") for one in (blocking, asynchronous)]
        writes = [pool.submit(one.send_events, like()) for one in (blocking, asynchronous)]
        with (
            client("blocking", url, retries=QUICK) as impatient,
            pytest.raises(Unavailable, match=r"after 4 attempts; the last one: Connect"),
        ):
            impatient.popular()
        assert not any(call.done() for call in (*reads, *writes))
        spawn("api", **environment)
        assert [read.result(90).method_used for read in reads] == ["als", "als"]
        assert all(write.result(90).token for write in writes)


@each_client
@pytest.mark.parametrize(
    "failure",
    [BUSY, Reply(429), Reply(502, b"<html>"), Reply(504), Reply(0)],
    ids=lambda reply: str(reply.status),
)
def test_a_passing_failure_is_retried_and_never_seen(kind: str, failure: Reply) -> None:
    with (
        scripted([failure, failure, Reply(200, EMPTY)]) as (url, requests),
        client(kind, url, retries=QUICK) as connected,
    ):
        assert connected.popular(limit=3).method_used == "popular"
        assert [request.path for request in requests] == ["/api/popular?limit=3"] * 3


@each_client
def test_a_lasting_failure_is_one_error_that_names_the_last_cause(kind: str) -> None:
    with scripted([BUSY]) as (url, requests), client(kind, url, retries=QUICK) as connected:
        with pytest.raises(
            Unavailable,
            match=(
                r"GET http://127.0.0.1:\d+/api/popular failed after 4 attempts.*503: the broker "
                r"is away"
            ),
        ):
            connected.popular()
        assert len(requests) == 4


def test_any_number_of_attempts_has_a_wait() -> None:
    backoff = Backoff(RetryPolicy(attempts=5000, total_s=1e9))
    waits = [backoff.next_wait() for _ in range(4999)]
    assert all(wait is not None and 0 < wait <= 3.0 for wait in waits)
    assert backoff.next_wait() is None


@each_client
@pytest.mark.parametrize("header", ["1", "date"])
def test_the_wait_that_the_server_asks_for_is_kept(kind: str, header: str) -> None:
    asked = header if header == "1" else formatdate(time.time() + 2, usegmt=True)
    busy = BUSY._replace(headers={"retry-after": asked})
    with (
        scripted([busy, Reply(200, EMPTY)]) as (url, _),
        client(kind, url, retries=QUICK) as connected,
    ):
        began = time.monotonic()
        connected.popular()
        assert time.monotonic() - began > 0.9


@each_client
def test_a_wait_beyond_the_time_left_ends_the_call_at_once(kind: str) -> None:
    busy = BUSY._replace(headers={"retry-after": "3600"})
    with scripted([busy]) as (url, requests), client(kind, url, retries=QUICK) as connected:
        with pytest.raises(Unavailable, match="asks to wait 3600 s"):
            connected.popular()
        assert len(requests) == 1


@each_client
@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (Reply(401, b'{"error":"unauthorized","detail":"send a key"}'), Unauthorized, "send a key"),
        (
            Reply(403, b'{"error":"writes_disabled","detail":"no keys"}'),
            Unauthorized,
            "writes_disabled",
        ),
        (Reply(404, b'{"error":"not_found","detail":"no such path"}'), NotFound, "no such path"),
        (
            Reply(422, b'{"error":"bad_token","detail":"no token"}'),
            RequestRejected,
            "bad_token: no token",
        ),
        (Reply(500, b'{"error":"internal","detail":"a defect"}'), RequestRejected, "a defect"),
        (Reply(404, b"<html>nginx"), UnexpectedAnswer, "<html>nginx"),
        (Reply(200, b"<html>login"), UnexpectedAnswer, "answered 200"),
        (Reply(200, b'{"method_used": 3}'), UnexpectedAnswer, "method_used"),
        (Reply(302, headers={"location": "/login"}), UnexpectedAnswer, "answered 302"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else "",
)
def test_what_no_retry_mends_is_an_error_at_once(
    kind: str, reply: Reply, error: type[Exception], text: str
) -> None:
    with scripted([reply]) as (url, requests), client(kind, url, retries=QUICK) as connected:
        with pytest.raises(error, match=text) as raised:
            connected.popular()
        assert type(raised.value) is error
        assert len(requests) == 1


@each_client
def test_a_server_that_does_not_answer_in_time_is_unavailable(kind: str) -> None:
    slow = Reply(200, EMPTY, {"content-length": "1000"})  # the rest of the body never comes
    with (
        scripted([slow]) as (url, _),
        client(kind, url, timeout_s=0.2, retries=RetryPolicy(attempts=1)) as connected,
        pytest.raises(Unavailable, match="ReadTimeout"),
    ):
        connected.popular()


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
    """An answer to POST /api/events: a token, or the error given."""
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
def test_of_a_request_that_was_taken_in_part_only_the_rest_is_sent_again(kind: str) -> None:
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
def test_when_sending_ends_early_the_error_says_what_was_accepted(kind: str) -> None:
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
def test_an_event_that_cannot_be_sent_stops_the_rest_and_the_error_says_what_was_accepted(
    kind: str,
) -> None:
    first = Reply(202, results(*[None] * MAX_EVENTS))
    with scripted([first]) as (url, requests), client(kind, url, retries=QUICK) as connected:
        with pytest.raises(InvalidInput) as stopped:
            connected.send_events([*(like() for _ in range(MAX_EVENTS)), like(), like(user_id="")])
        assert len(requests) == 1
    assert stopped.value.results is not None
    assert stopped.value.results.accepted == MAX_EVENTS


def test_requests_stay_below_the_size_that_the_server_takes() -> None:
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
def test_what_breaks_the_contract_is_refused_before_it_is_sent(kind: str) -> None:
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
def test_an_address_that_is_none_is_refused(kind: str, url: str) -> None:
    with pytest.raises(InvalidInput, match="base_url"), client(kind, url):
        pass


@each_client
def test_a_key_that_is_none_is_refused_and_not_shown(kind: str) -> None:
    with (
        pytest.raises(InvalidInput, match="api_key") as refused,
        client(kind, "http://host", api_key="secret\r\nx: y"),
    ):
        pass
    assert "secret" not in str(refused.value)
