"""Writes events, items and users to the log.

An answer with a token means that the message is in the log; nothing else was accepted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError, invalid, json_response, status_of
from api.routes.routing import Operation, add, path_id
from api.schemas import bodies
from api.schemas.answers import Accepted, Error, EventResult, EventResults
from api.schemas.document import DocumentedApp, schema
from api.service import Service
from core.codec import decode_interaction, decode_item, decode_user, encode_json
from core.errors import BadEvent, LogUnavailable
from core.types import Interaction, Item, User

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
_Entry = TypeVar("_Entry", Item, User)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ERRORS = {
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
                errors={**_ERRORS, 207: "some were accepted, some not: see each result"},
                other_answers={
                    207: (EventResults,),
                    422: (EventResults, Error),
                },
            ),
        )
        for path, tag, model, put, delete, example in (
            (
                "/api/items/{item_id}",
                "catalogue",
                bodies.Item,
                self.put_item,
                self.delete_item,
                _ITEM,
            ),
            ("/api/users/{user_id}", "users", bodies.User, self.put_user, self.delete_user, _USER),
        ):
            kind = tag.removesuffix("s").replace("catalogue", "item")
            add(
                app,
                Operation(
                    method="PUT",
                    path=path,
                    handler=put,
                    answer=Accepted,
                    tag=tag,
                    summary=f"Create or replace one {kind}",
                    status=202,
                    body={"schema": schema(model), "example": example},
                    errors=_ERRORS,
                ),
            )
            add(
                app,
                Operation(
                    method="DELETE",
                    path=path,
                    handler=delete,
                    answer=Accepted,
                    tag=tag,
                    summary=f"Delete one {kind}",
                    status=202,
                    errors={code: text for code, text in _ERRORS.items() if code not in (400, 413)},
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
        raws = [msgspec.Raw(body)] if single else _parsed(_array, body)
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

    async def put_item(self, request: Request) -> Response:
        """The body replaces the whole catalogue entry of the item.

        Answers show it within about a second.
        """
        item = await _entry(request, "item_id", decode_item)
        return await self._change(self._settings.items_topic, item.item_id, encode_json(item))

    async def delete_item(self, request: Request) -> Response:
        """The item is in no answer after about a second.

        An unknown id is accepted, too.
        """
        return await self._change(self._settings.items_topic, path_id(request, "item_id"), None)

    async def put_user(self, request: Request) -> Response:
        """The body replaces the whole declaration of the user.

        Interests decide the recommendations for a user without interactions.
        """
        user = await _entry(request, "user_id", decode_user)
        return await self._change(self._settings.users_topic, user.user_id, encode_json(user))

    async def delete_user(self, request: Request) -> Response:
        """Deletes everything about the user from Redis; older interactions never count again.

        An unknown id is accepted, too.
        """
        return await self._change(self._settings.users_topic, path_id(request, "user_id"), None)

    def _checked(self, result: EventResult, raw: msgspec.Raw) -> Interaction | None:
        try:
            event = decode_interaction(bytes(raw), time.time(), self._settings.use_cases)
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
        unavailable = sum(result.error == "log_unavailable" for result in results)
        metrics = self._service.metrics
        metrics.count_events("accepted", accepted)
        metrics.count_events("unavailable", unavailable)
        metrics.count_events("invalid", len(results) - accepted - unavailable)
        if accepted == len(results):
            status = 202
        elif accepted:
            status = 207
        elif unavailable:
            first = next(result for result in results if result.error == "log_unavailable")
            raise ApiError(
                503,
                "log_unavailable",
                f"no event was accepted, send them again with the same event_id: {first.detail}",
                {"retry-after": "1"},
            )
        else:
            status = status_of(results[0].error or "") if single else 422
        return json_response(
            EventResults(accepted=accepted, rejected=len(results) - accepted, results=results),
            status,
        )

    async def _change(self, topic: str, identifier: str, value: bytes | None) -> Response:
        try:
            token = await self._service.publish(topic, identifier.encode(), value)
        except LogUnavailable as error:
            raise ApiError(
                503,
                "log_unavailable",
                f"the change was not accepted, send it again: {error}",
                {"retry-after": "1"},
            ) from None
        return json_response(Accepted(id=identifier, token=token), 202)


def _parsed(decoder: msgspec.json.Decoder[_Body], body: bytes) -> _Body:
    """The body's outer structure. Raises ApiError."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(f"the body is not of the right shape: {error}", "bad_field") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "not_json", f"the body is not JSON: {error}") from None


async def _entry(request: Request, id_name: str, decode: Callable[[bytes], _Entry]) -> _Entry:
    """The catalogue entry in the body, under the id in the path. Raises ApiError, BadEvent."""
    identifier = path_id(request, id_name)
    fields = _parsed(_object, await request.body())
    body_id = fields.setdefault(id_name, msgspec.Raw(encode_json(identifier)))
    entry = decode(encode_json(fields))
    if getattr(entry, id_name) != identifier:
        raise invalid(
            (
                f"{id_name} in the body is {bytes(body_id).decode()}, in the path {identifier!r}; "
                f"leave it out of the body"
            ),
            "bad_id",
        )
    return entry


_EVENT = {
    "event_id": "1",
    "user_id": "42",
    "item_id": "startup-9",
    "event_type": "like",
    "timestamp": 1795341600.0,
}
_ITEM = {
    "item_type": "startup",
    "title": "Ledgerly",
    "categories": ["fintech"],
    "tags": ["python", "kafka"],
    "attributes": {"stage": "seed", "team_size": 7},
}
_USER = {"roles": ["developer"], "interests": ["fintech", "python"]}
