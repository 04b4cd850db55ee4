"""Writes events to the log.

An answer with a token means that the message is in the log; nothing else was accepted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError, invalid, json_response, status_of, unavailable
from api.routes.routing import Operation, add
from api.schemas import bodies
from api.schemas.answers import Error, EventResult, EventResults
from api.schemas.document import DocumentedApp, schema
from api.service import Service
from api.unknown_fields import refuse_unknown
from core.codec import decode_interaction, encode_json
from core.contract import problems
from core.errors import BadEvent, LogUnavailable
from core.types import Interaction

MAX_EVENTS = 1000
"""Events in one request: they take about 40 ms of the process."""
EVENTS_AT_ONCE = 32
"""Events that are checked and passed to the producer before other requests run: about a
millisecond.
"""
PAUSE_S = 0.002
"""Seconds for other requests in between: a read takes several turns of the event loop, and would
otherwise wait in each for a part of the events.
"""
_Body = TypeVar("_Body")
_array = msgspec.json.Decoder(list[msgspec.Raw])
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
ERRORS = {
    400: "not JSON",
    401: "no key, or a wrong one",
    403: "this server has no API_KEYS: writes are off",
    413: "the body is too large",
    422: "outside the contract",
    503: "the broker has not acknowledged it: send it again",
}


class Writes:
    """The writing routes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._tolerance = service.tolerance

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        event = schema(bodies.Event)
        one_or_many = {
            "schema": {
                "oneOf": [
                    event,
                    {"type": "array", "items": event, "minItems": 1, "maxItems": MAX_EVENTS},
                ]
            },
            "examples": {
                "one": {"value": _EVENT},
                "many": {"value": [_EVENT, {**_EVENT, "event_id": "2", "event_type": "view"}]},
            },
        }
        add(
            app,
            Operation(
                method="POST",
                path="/api/events",
                handler=self.events,
                answer=EventResults,
                tag="events",
                summary="Publish one event or many",
                body=one_or_many,
                status=202,
                errors={**ERRORS, 207: "some were accepted, some not: see each result"},
                other_answers={
                    207: (EventResults,),
                    422: (EventResults, Error),
                },
            ),
        )

    async def events(self, request: Request) -> Response:
        """Publish one event (an object) or up to 1,000 (an array) to the log, and wait until the
        broker has acknowledged them.

        Each is checked by the same contract as in Kafka. 202: all were accepted; 207: some; 422:
        none is valid (400: not JSON); 503: the broker acknowledged none. An event without a token
        in its result was not accepted: send it again with the same `event_id`; it counts once.
        """
        body = await request.body()
        single = body.lstrip()[:1] != b"["
        raws = [msgspec.Raw(body)] if single else parsed(_array, body)
        if not 1 <= len(raws) <= MAX_EVENTS:
            raise invalid(f"send 1 to {MAX_EVENTS} events at once, not {len(raws)}", "bad_count")
        results = [EventResult(index=index) for index in range(len(raws))]
        async with asyncio.TaskGroup() as publishing:
            for start in range(0, len(raws), EVENTS_AT_ONCE):
                for result, raw in zip(
                    results[start : start + EVENTS_AT_ONCE],
                    raws[start : start + EVENTS_AT_ONCE],
                    strict=True,
                ):
                    if (event := self._checked(result, raw)) is not None:
                        publishing.create_task(self._publish(result, event))
                await asyncio.sleep(PAUSE_S)
        return self._answer(results, single)

    def _checked(self, result: EventResult, raw: msgspec.Raw) -> Interaction | None:
        try:
            refuse_unknown(_names(raw), Interaction)
            event = decode_interaction(
                bytes(raw), time.time(), self._settings.use_cases, self._tolerance
            )
        except BadEvent as error:
            result.error, result.detail = error.code, str(error)
            return None
        result.event_id = event.event_id
        return event

    async def _publish(self, result: EventResult, event: Interaction) -> None:
        try:
            result.token = await self._service.publish(
                self._settings.interactions_topic, event.user_id.encode(), encode_json(event)
            )
        except LogUnavailable as error:
            result.error, result.detail = "log_unavailable", str(error)

    def _answer(self, results: list[EventResult], single: bool) -> Response:
        accepted = sum(result.token is not None for result in results)
        unsent = sum(result.error == "log_unavailable" for result in results)
        metrics = self._service.metrics
        metrics.count_events("accepted", accepted)
        metrics.count_events("unavailable", unsent)
        metrics.count_events("invalid", len(results) - accepted - unsent)
        if accepted == len(results):
            status = 202
        elif accepted:
            status = 207
        elif unsent:
            first = next(result for result in results if result.error == "log_unavailable")
            raise unavailable(
                "log_unavailable",
                f"no event was accepted, send them again with the same event_id: {first.detail}",
            )
        else:
            status = status_of(results[0].error or "") if single else 422
        return json_response(
            EventResults(accepted=accepted, rejected=len(results) - accepted, results=results),
            status,
        )


def _names(raw: msgspec.Raw) -> Iterable[str]:
    """The fields of an event; none where it is no object, which is not decoded either."""
    try:
        return _fields.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()


def parsed(decoder: msgspec.json.Decoder[_Body], body: bytes) -> _Body:
    """The body's outer structure. Raises ApiError."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = problems.in_words(error, body, "body")
        if isinstance(error, msgspec.ValidationError):
            raise invalid(text, "bad_field") from None
        raise ApiError(400, "not_json", text) from None


_EVENT = {
    "event_id": "1",
    "user_id": "42",
    "item_id": "startup-9",
    "event_type": "like",
    "timestamp": 1795341600.0,
}
