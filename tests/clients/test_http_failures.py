"""Which failures the HTTP clients retry, how long they wait, and which error ends a call."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from eddyline_client import (
    NotFound,
    RequestRejected,
    RetryPolicy,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from eddyline_client.retries import Backoff
from tests.clients.support import (
    BUSY,
    EMPTY,
    QUICK,
    Reply,
    client,
    each_client,
    scripted,
)


@each_client
@pytest.mark.parametrize(
    "failure",
    [BUSY, Reply(429), Reply(502, b"<html>"), Reply(504), Reply(0)],
    ids=lambda reply: str(reply.status),
)
def test_a_transient_failure_is_retried_and_not_raised(kind: str, failure: Reply) -> None:
    with (
        scripted([failure, failure, Reply(200, EMPTY)]) as (url, requests),
        client(kind, url, retries=QUICK) as connected,
    ):
        assert connected.popular(limit=3).method_used == "popular"
        assert [request.path for request in requests] == ["/api/popular?limit=3"] * 3


@each_client
def test_a_permanent_failure_raises_one_error_with_the_last_cause(kind: str) -> None:
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


def test_any_number_of_attempts_has_a_bounded_wait() -> None:
    backoff = Backoff(RetryPolicy(attempts=5000, total_s=1e9))
    waits = [backoff.next_wait() for _ in range(4999)]
    assert all(wait is not None and 0 < wait <= 3.0 for wait in waits)
    assert backoff.next_wait() is None


@each_client
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(kind: str, form: str) -> None:
    due = int(time.time()) + 2  # a date has whole seconds
    retry_after = "1" if form == "seconds" else formatdate(due, usegmt=True)
    busy = BUSY._replace(headers={"retry-after": retry_after})
    with (
        scripted([busy, Reply(200, EMPTY)]) as (url, _),
        client(kind, url, retries=QUICK) as connected,
    ):
        began = time.time()
        connected.popular()
        assert time.time() > (began + 1 if form == "seconds" else due) - 0.1


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
def test_an_error_that_a_retry_cannot_fix_is_raised_at_once(
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
