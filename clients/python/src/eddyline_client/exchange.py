"""The logic of both HTTP clients, without input and output.

Each function is a generator of steps. It yields a request to send or a pause to make, receives the
outcome, and returns the answer; a client executes the steps, blocking or not.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import httpx
import msgspec

from eddyline_client import calls
from eddyline_client.calls import Call
from eddyline_client.contract import encode_event
from eddyline_client.errors import (
    EddylineClientError,
    EventsRejected,
    InvalidInput,
    NotFound,
    RequestRejected,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from eddyline_client.retries import Backoff, RetryPolicy, retry_after_s
from eddyline_client.types import EntryResults, Error, Event, EventResult, EventResults
from eddyline_client.version import __version__

MAX_EVENTS = 1000
"""Events in one request: the limit of the server."""
MAX_BODY_BYTES = 1_000_000
"""Bytes in one request with events: below the server's default limit (API_MAX_BODY_BYTES, 1 MiB).
"""
RETRIED_STATUS = frozenset({429, 502, 503, 504})
"""Too many requests, unavailable; 502 and 504 come from a proxy while its server restarts."""
_NOT_RETRIED = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
_LOG_UNAVAILABLE = "log_unavailable"
_Answer = TypeVar("_Answer")


class Pause(NamedTuple):
    """A step: wait this long."""

    seconds: float


Outcome = httpx.Response | httpx.HTTPError | None
"""The result of a step: None after a pause."""
Steps = Generator[httpx.Request | Pause, Outcome, _Answer]


class Service:
    """The address of the server, and the headers, time-out and retries of requests to it.

    Raises InvalidInput when `base_url` is no http(s) URL or `api_key` is not allowed in a header.
    """

    def __init__(
        self, base_url: str, api_key: str | None, timeout_s: float, retries: RetryPolicy
    ) -> None:
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise InvalidInput("invalid_parameter", f"base_url is no URL: {error}") from None
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise InvalidInput(
                "invalid_parameter",
                "base_url must be http(s)://host[:port][/prefix], without query or fragment",
            )
        if api_key is not None and not (api_key.isprintable() and api_key.strip()):
            raise InvalidInput(
                "invalid_parameter", "api_key is empty or contains a control character"
            )
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self._timeout = httpx.Timeout(timeout_s).as_dict()
        self._headers = {
            b"user-agent": f"eddyline-client/{__version__}".encode(),
            b"accept": b"application/json",
        }
        if api_key is not None:
            self._headers[b"x-api-key"] = api_key.encode()

    def request(self, call: Call[_Answer]) -> httpx.Request:
        """`call` as a request to this server."""
        headers = dict(self._headers)
        if call.body is not None:
            headers[b"content-type"] = b"application/json"
        url = f"{self.base_url}{call.path}{'?' if call.query else ''}{call.query}"
        return httpx.Request(
            call.method,
            url,
            headers=headers,
            content=call.body,
            extensions={"timeout": self._timeout},
        )


def perform(
    service: Service, call: Call[_Answer], backoff: Backoff | None = None
) -> Steps[_Answer]:
    """Send `call` until the server answers it, within the retry policy.

    Every call may be repeated: none counts twice.

    Raises Unavailable, RequestRejected, UnexpectedAnswer.
    """
    backoff = backoff or Backoff(service.retries)
    while True:
        outcome = yield service.request(call)
        server_wait_s = 0.0
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in RETRIED_STATUS:
                return _read(call, outcome)
            server_wait_s = retry_after_s(outcome.headers.get("retry-after"))
            cause = f"status {outcome.status_code}: {_detail(outcome)}"
        elif isinstance(outcome, httpx.TransportError) and not isinstance(outcome, _NOT_RETRIED):
            cause = f"{type(outcome).__name__}: {outcome}"
        else:
            raise UnexpectedAnswer(
                f"{call.method} {service.base_url}{call.path}: {type(outcome).__name__}: {outcome}"
            )
        yield from _wait(
            backoff, server_wait_s, f"{call.method} {service.base_url}{call.path}", cause
        )


def send_events(service: Service, events: Event | Iterable[Event]) -> Steps[EventResults]:
    """Send events in requests of at most 1,000, each until the log has it, and collect the results.

    Raises EventsRejected once all were sent, if some break the contract; Unavailable or
    RequestRejected at the first request that fails permanently; InvalidInput at the first event
    that cannot be sent. Each error has `results`.
    """
    results: list[EventResult] = []
    try:
        for batch in _batches([events] if isinstance(events, Event) else events):
            yield from _publish(service, batch, results)
    except EddylineClientError as error:
        error.results = _summary(results)
        raise
    summary = _summary(results)
    if summary.rejected:
        first = next(result for result in results if result.token is None)
        raise EventsRejected(
            f"{summary.rejected} of {len(results)} events were rejected; the first is "
            f"number {first.index}, event_id {first.event_id!r}: {first.error}: {first.detail}",
            summary,
        )
    return summary


def _publish(service: Service, batch: Sequence[bytes], results: list[EventResult]) -> Steps[None]:
    """Send the events of one request; those that the broker has not acknowledged are sent again.

    Appends a result of each event to `results`, also when it raises.
    """
    first = len(results)
    backoff = Backoff(service.retries)
    pending = list(range(len(batch)))
    outcome: dict[int, EventResult] = {}
    try:
        while True:
            answer = yield from perform(
                service, calls.publish([batch[place] for place in pending]), backoff
            )
            if len(answer.results) != len(pending):
                raise UnexpectedAnswer(f"{len(answer.results)} results for {len(pending)} events")
            for place, result in zip(pending, answer.results, strict=True):
                outcome[place] = msgspec.structs.replace(result, index=first + place)
            pending = [place for place in pending if outcome[place].error == _LOG_UNAVAILABLE]
            if not pending:
                return
            cause = f"{len(pending)} events: {outcome[pending[0]].detail}"
            yield from _wait(backoff, 0.0, f"POST {service.base_url}/api/events", cause)
    finally:
        results += [
            outcome.get(place) or EventResult(index=first + place, error="not_sent")
            for place in range(len(batch))
        ]


def _wait(
    backoff: Backoff, server_wait_s: float, what: str, cause: str
) -> Generator[Pause, Outcome, None]:
    """A pause before the next attempt. Raises Unavailable when there is none."""
    wait = backoff.next_wait(server_wait_s)
    if wait is None:
        suffix = f"; the server asks to wait {server_wait_s:g} s" if server_wait_s else ""
        raise Unavailable(
            f"{what} failed after {backoff.attempts} attempts; the last one: {cause}{suffix}"
        )
    yield Pause(wait)


def _batches(events: Iterable[Event]) -> Iterator[list[bytes]]:
    """Encoded events in groups that fit into one request, in order.

    Raises InvalidInput at the first event that breaks the contract.
    """
    batch: list[bytes] = []
    size = 0
    for event in events:
        data = encode_event(event)
        if batch and (len(batch) == MAX_EVENTS or size + len(data) + 1 > MAX_BODY_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(data)
        size += len(data) + 1
    if batch:
        yield batch


def _summary(results: list[EventResult]) -> EventResults:
    accepted = sum(result.token is not None for result in results)
    return EventResults(accepted=accepted, rejected=len(results) - accepted, results=results)


def _read(call: Call[_Answer], response: httpx.Response) -> _Answer:
    """The typed answer. Raises RequestRejected, UnexpectedAnswer."""
    # 422 for many events or entries: none is valid, and the body has the error of each.
    if response.is_success or (
        response.status_code == 422
        and call.answer in (EventResults, EntryResults)
        and b'"results"' in response.content
    ):
        try:
            return msgspec.json.decode(response.content, type=call.answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnexpectedAnswer(
                f"{_where(call, response)}: not an answer of Eddyline: {error}"
            ) from None
    try:
        body = msgspec.json.decode(response.content, type=Error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UnexpectedAnswer(
            f"{_where(call, response)}: not an error of Eddyline: is base_url right? The "
            f"body begins {response.text[:100]!r}"
        ) from None
    kind = {401: Unauthorized, 403: Unauthorized, 404: NotFound}.get(
        response.status_code, RequestRejected
    )
    raise kind(
        response.status_code, body.error, f"{_where(call, response)}: {body.error}: {body.detail}"
    )


def _where(call: Call[_Answer], response: httpx.Response) -> str:
    return f"{call.method} {call.path} answered {response.status_code}"


def _detail(response: httpx.Response) -> str:
    try:
        return msgspec.json.decode(response.content, type=Error).detail
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return response.text[:100]
