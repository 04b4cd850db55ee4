"""Writes entries of the catalogue and profiles of users to the log: whole, in part, or many.

A change in part is merged with the latest entry: the state in Redis, once it has all that the log
holds of the id. Changes of one id pass one at a time through this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError, invalid, json_response, unavailable
from api.routes.entry_kinds import Entry, Kind, item_kind, user_kind
from api.routes.routing import Operation, add, path_id
from api.routes.writes import ERRORS, parsed
from api.schemas.answers import Accepted, EntryResult, EntryResults, Error
from api.schemas.document import DocumentedApp, schema
from api.service import Service
from api.unknown_fields import refuse_unknown
from core.codec import encode_json
from core.errors import BadEvent, LogUnavailable, StoreError
from core.types import Item

MAX_ENTRIES = 1000
"""Entries in one request."""
ENTRIES_AT_ONCE = 32
"""Entries that are checked and passed to the producer before other requests run."""
_array = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_change = msgspec.json.Decoder(dict[str, Any])


class Entries:
    """The writing routes of one kind."""

    def __init__(self, service: Service, kind: Kind) -> None:
        self._service, self._kind = service, kind
        self._tolerance = service.tolerance
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        kind = self._kind
        path = f"/api/{kind.name}s"
        whole, body = schema(kind.body), {"example": dict(kind.example)}
        many = {"type": "array", "items": whole, "minItems": 1, "maxItems": MAX_ENTRIES}
        example = {kind.id_name: "9", **kind.example}
        without_body = {code: text for code, text in ERRORS.items() if code not in (400, 413)}
        for method, handler, summary, content, errors in (
            ("PUT", self.put, f"Create or replace one {kind.name}", {"schema": whole, **body}, {}),
            (
                "PATCH",
                self.patch,
                f"Change some fields of one {kind.name}",
                {"schema": schema(kind.change), "example": dict(kind.example_change)},
                {404: f"no such {kind.name}; PUT creates it"} if kind.entry is Item else {},
            ),
            ("DELETE", self.delete, f"Delete one {kind.name}", None, {}),
        ):
            add(
                app,
                Operation(
                    method=method,
                    path=f"{path}/{{{kind.id_name}}}",
                    handler=handler,
                    answer=Accepted,
                    tag=kind.tag,
                    summary=summary,
                    status=202,
                    body=content,
                    errors={**(ERRORS if content else without_body), **errors},
                ),
            )
        add(
            app,
            Operation(
                method="POST",
                path=path,
                handler=self.put_many,
                answer=EntryResults,
                tag=kind.tag,
                summary=f"Create or replace up to {MAX_ENTRIES:,} {kind.name}s",
                body={"schema": many, "example": [example]},
                status=202,
                errors={**ERRORS, 207: "some were accepted, some not: see each result"},
                other_answers={207: (EntryResults,), 422: (EntryResults, Error)},
            ),
        )

    async def put(self, request: Request) -> Response:
        """The body replaces the whole entry; answers show it within about a second.

        A field that the contract does not have is a 422.
        """
        identifier = path_id(request, self._kind.id_name)
        fields = parsed(_object, await request.body())
        fields.setdefault(self._kind.id_name, msgspec.Raw(encode_json(identifier)))
        value = self._encoded(identifier, fields)
        async with self._lock(identifier):
            return await self._publish(identifier, value)

    async def patch(self, request: Request) -> Response:
        """Merge the fields of the body with the entry: null removes a field, all others stay.

        Attributes are merged by name. `{"available": false}` hides an item. The entry is the one
        after all earlier writes; 503 while that is not known.
        """
        kind, identifier = self._kind, path_id(request, self._kind.id_name)
        change = parsed(_change, await request.body())
        refuse_unknown(change, kind.entry)
        async with self._lock(identifier):
            entry = await self._latest(identifier)
            if entry is None and kind.entry is Item:
                raise ApiError(404, "not_found", f"no {kind.name} {identifier!r}; PUT creates it")
            fields = {} if entry is None else msgspec.to_builtins(entry)
            merged = merge({**fields, kind.id_name: identifier}, change)
            return await self._publish(identifier, self._encoded(identifier, merged))

    async def delete(self, request: Request) -> Response:
        """Deletes the entry of an item, which is then in no answer, or everything about a user.

        It takes about a second; older interactions of a user never count again. An unknown id is
        accepted, too.
        """
        identifier = path_id(request, self._kind.id_name)
        async with self._lock(identifier):
            return await self._publish(identifier, None)

    async def put_many(self, request: Request) -> Response:
        """Each entry of the array, with its id, replaces a whole entry, as PUT does.

        Each is accepted or rejected by itself. 202: all were accepted; 207: some; 422: none is
        valid; 503: the broker acknowledged none. An entry without a token in its result was not
        accepted.
        """
        raws = parsed(_array, await request.body())
        if not 1 <= len(raws) <= MAX_ENTRIES:
            raise invalid(
                f"send 1 to {MAX_ENTRIES} {self._kind.name}s at once, not {len(raws)}", "bad_count"
            )
        results = [EntryResult(index=index) for index in range(len(raws))]
        async with asyncio.TaskGroup() as publishing:
            for index, raw in enumerate(raws):
                try:
                    fields = parsed(_object, bytes(raw))
                    entry = self._decoded(fields)
                except (BadEvent, ApiError) as error:
                    code = error.code if isinstance(error, BadEvent) else error.error
                    results[index].error, results[index].detail = code, str(error)
                else:
                    publishing.create_task(self._publish_one(results[index], entry))
                if index % ENTRIES_AT_ONCE == ENTRIES_AT_ONCE - 1:
                    await asyncio.sleep(0)
        return self._answer(results)

    async def _publish_one(self, result: EntryResult, entry: Entry) -> None:
        result.id = self._id_of(entry)
        async with self._lock(result.id):
            try:
                result.token = await self._service.publish(
                    self._kind.topic, result.id.encode(), encode_json(entry)
                )
            except LogUnavailable as error:
                result.error, result.detail = "log_unavailable", str(error)

    def _answer(self, results: list[EntryResult]) -> Response:
        accepted = sum(result.token is not None for result in results)
        if not accepted and all(result.error == "log_unavailable" for result in results):
            raise unavailable(
                "log_unavailable", f"nothing was accepted, send it again: {results[0].detail}"
            )
        status = 202 if accepted == len(results) else 207 if accepted else 422
        answer = EntryResults(accepted=accepted, rejected=len(results) - accepted, results=results)
        return json_response(answer, status)

    def _lock(self, identifier: str) -> asyncio.Lock:
        """The lock of an id; it exists while a change of the id is under way."""
        return self._locks.setdefault(identifier, asyncio.Lock())

    def _id_of(self, entry: Entry) -> str:
        return entry.item_id if isinstance(entry, Item) else entry.user_id

    def _decoded(self, fields: Mapping[str, Any]) -> Entry:
        """The entry with these fields. Raises BadEvent."""
        refuse_unknown(fields, self._kind.entry)
        return self._kind.decode(encode_json(fields), time.time(), self._tolerance)

    def _encoded(self, identifier: str, fields: Mapping[str, Any]) -> bytes:
        """The entry with these fields, for the log. Raises BadEvent, ApiError."""
        entry = self._decoded(fields)
        if (own := self._id_of(entry)) != identifier:
            raise invalid(
                f"{self._kind.id_name} in the body is {own!r}, in the URL {identifier!r}; leave "
                "it out of the body",
                "bad_id",
            )
        return encode_json(entry)

    async def _latest(self, identifier: str) -> Entry | None:
        """The entry after every write that the log holds. Raises ApiError 503."""
        try:
            if not await self._service.applied(self._kind.topic, identifier):
                raise unavailable(
                    "log_unavailable",
                    f"earlier writes of {self._kind.name}s are not applied yet, so the change "
                    "cannot be merged with them: is ingest running? Send it again",
                )
            return await self._kind.read(self._service.entries, identifier)
        except (LogUnavailable, StoreError) as error:
            word = "log_unavailable" if isinstance(error, LogUnavailable) else "store_unavailable"
            raise unavailable(word, f"the {self._kind.name} cannot be read: {error}") from None

    async def _publish(self, identifier: str, value: bytes | None) -> Response:
        try:
            token = await self._service.publish(self._kind.topic, identifier.encode(), value)
        except LogUnavailable as error:
            text = f"the change was not accepted, send it again: {error}"
            raise unavailable("log_unavailable", text) from None
        return json_response(Accepted(id=identifier, token=token), 202)


def merge(entry: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`entry` with `change`, as RFC 7396 merges JSON: null removes, objects are merged."""
    merged = dict(entry)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            inner = merged.get(name)
            merged[name] = merge(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def item_entries(service: Service) -> Entries:
    """The writing routes of the catalogue."""
    return Entries(service, item_kind(service.settings))


def user_entries(service: Service) -> Entries:
    """The writing routes of what users declare."""
    return Entries(service, user_kind(service.settings))
