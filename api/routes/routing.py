"""Registers routes with their OpenAPI documentation, and reads ids from paths."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from api.errors import invalid
from api.schemas.answers import Error
from api.schemas.document import DocumentedApp, reference
from core.codec import decode_id
from core.errors import BadEvent

Handler = Callable[[Request], Awaitable[Response]]
IDS = ("user_id", "item_id")
"""Ids that the query string may have instead of the path."""
PLACEHOLDER = "-"
"""What the path then has in its place; without the query parameter, `-` is an id like any other."""
READ_ERRORS = {
    401: "this server wants a key for reads",
    422: "a parameter is not acceptable; `detail` names it",
}
"""What reads document as `errors`, beside their own."""
BUDGET_ERRORS = {
    **READ_ERRORS,
    429: "too many such requests at once: send it again after `Retry-After` s",
}
"""The same for a read with a budget: see api.middleware.budget."""
ADMIN_ERRORS = {
    401: "no key, or a wrong one",
    403: "the key may not do this, or this server has no API_ADMIN_KEYS",
}


class PlainRoute(APIRoute):
    """A route whose handler takes the request and returns the response, called directly.

    FastAPI's own call (two exit stacks, dependency solving, validation and a second encoding of the
    answer) costs about as much as a whole read.
    """

    def __init__(self, path: str, endpoint: Handler, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if b"_id=" in scope["query_string"]:
                _take_ids(scope)
            response = await endpoint(Request(scope, receive))
            await response(scope, receive, send)

        self.app = app
        self._beginning = path.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Compares the fixed beginning of the path first: routes are tried in turn, and most of
        them end here, in a third of the time.
        """
        if not scope["path"].startswith(self._beginning):
            return Match.NONE, {}
        return super().matches(scope)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path, with its documentation.

    `parameters` and `body` as OpenAPI has them; `errors`: status -> description. `other_answers`:
    the answers to a status of `errors`, where it is not `Error` alone.
    """

    method: str
    path: str
    handler: Handler
    answer: type[msgspec.Struct]
    tag: str
    summary: str
    parameters: Sequence[dict[str, Any]] = ()
    body: dict[str, Any] | None = None
    status: int = 200
    errors: Mapping[int, str] = field(default_factory=dict)
    other_answers: Mapping[int, Sequence[type[msgspec.Struct]]] = field(default_factory=dict)


def add(app: DocumentedApp, operation: Operation) -> None:
    """Register an operation with its documentation."""
    extra: dict[str, Any] = {
        "parameters": [*_path_parameters(operation.path), *operation.parameters]
    }
    if operation.body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": operation.body}}
    responses: dict[int | str, dict[str, Any]] = {
        operation.status: _response(app, "Successful Response", [operation.answer])
    }
    for status, description in operation.errors.items():
        answers = operation.other_answers.get(status, [Error])
        responses[status] = _response(app, description, answers)
    app.router.add_api_route(
        operation.path,
        operation.handler,
        methods=[operation.method],
        response_model=None,
        tags=[operation.tag],
        summary=operation.summary,
        status_code=operation.status,
        openapi_extra=extra,
        description=inspect.getdoc(operation.handler) or "",
        route_class_override=PlainRoute,
        responses=responses,
    )


def _response(
    app: DocumentedApp, description: str, answers: Sequence[type[msgspec.Struct]]
) -> dict[str, Any]:
    app.answers.update(answers)
    content = {"application/json": {"schema": reference(*answers)}}
    return {"description": description, "content": content}


def _take_ids(scope: Scope) -> None:
    """Move `user_id` and `item_id` of the query string to the path, where `-` stands for them.

    A proxy that decodes paths would split an id with `/`, and turn `..` into another path; a query
    string passes through it as it is. Raises ApiError 422.
    """
    ids, moved, rest = scope["path_params"], set(), []
    for pair in scope["query_string"].split(b"&"):
        raw_name, _, value = pair.partition(b"=")
        name = raw_name.decode("latin-1")
        if name not in IDS or name not in ids:
            rest.append(pair)
        elif name in moved:
            raise invalid(f"{name} occurs twice")
        elif ids[name] != PLACEHOLDER:
            raise invalid(
                f"the path and the query string both have {name}; with the query parameter, the "
                f"path has {PLACEHOLDER} in its place",
                "bad_id",
            )
        else:
            moved.add(name)
            ids[name] = value.decode("latin-1").replace("+", "%20")
    scope["query_string"] = b"&".join(rest)


def path_id(request: Request, name: str) -> str:
    """An id of the path or query string, percent-decoded and valid by the contract.

    Raises ApiError 422.

    The guard leaves the path encoded, so that an id with `/` (as %2F) stays one part of the path.
    """
    raw: str = request.path_params[name]
    try:
        return decode_id(unquote_to_bytes(raw))
    except BadEvent as error:
        raise invalid(
            str(error).replace("the message key", f"{name} in the URL"), "bad_id"
        ) from None


_PATH_PARAMETERS = {
    "user_id": (
        "42",
        (
            "the user's id, percent-encoded (`/` as %2F); any id will do, an unknown user is "
            "answered with what is popular"
        ),
    ),
    "item_id": ("startup-9", "the item's id, percent-encoded"),
    "place": ("interactions:0:182734", "topic:partition:offset of the message"),
    "version": ("2026-11-22T10-00-00Z", "a published version"),
    "a": ("2026-11-15T03-00-00Z", "a published version"),
    "b": ("2026-11-22T10-00-00Z", "another one"),
    "item_type": ("startups", "kind of item, as the configured use case spells it in its path"),
    "role": ("developer", "role of the user, as the configured use case spells it in its path"),
}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [name for name in _PATH_PARAMETERS if f"{{{name}}}" in path]
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "example": _PATH_PARAMETERS[name][0],
            "description": _PATH_PARAMETERS[name][1],
        }
        for name in names
    ]
    in_query = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": (
                f"the {name} instead of the path, which then has `{PLACEHOLDER}` in its place: for "
                f"an id with `/` behind a proxy that decodes paths"
            ),
        }
        for name in names
        if name in IDS
    ]
    return in_path + in_query
