"""Routes that FastAPI documents and that run without its dependency machinery; ids in paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import invalid
from api.schemas.answers import Error
from core.codec import decode_id
from core.errors import BadEvent

Handler = Callable[[Request], Awaitable[Response]]


class PlainRoute(APIRoute):
    """A route whose handler takes the request and answers a response, called directly.

    FastAPI's own call (two exit stacks, dependency solving, validation and a second encoding of the
    answer) costs about as much as a whole read; declared models still make the OpenAPI page.
    """

    def __init__(self, path: str, endpoint: Handler, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive))
            await response(scope, receive, send)

        self.app = app


def add(
    app: FastAPI,
    method: str,
    path: str,
    handler: Handler,
    *,
    model: Any,
    tag: str,
    summary: str,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    status: int = 200,
    errors: dict[int, str] | None = None,
    other_models: dict[int, Any] | None = None,
) -> None:
    """Register one route with its documentation: `model` of the answer, `parameters` and `body` as
    OpenAPI has them.

    `other_models`: by status, where a status of `errors` does not answer `Error`.
    """
    extra: dict[str, Any] = {"parameters": [*_path_parameters(path), *(parameters or [])]}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": body}}
    app.router.add_api_route(
        path,
        handler,
        methods=[method],
        response_model=model,
        tags=[tag],
        summary=summary,
        status_code=status,
        openapi_extra=extra,
        description=(handler.__doc__ or "").strip(),
        route_class_override=PlainRoute,
        responses={
            code: {"model": (other_models or {}).get(code, Error), "description": text}
            for code, text in (errors or {}).items()
        },
    )


def path_id(request: Request, name: str) -> str:
    """An id out of the path, percent-decoded, within the contract. Raises ApiError 422.

    The guard leaves the path encoded, so that an id may hold `/` (as %2F) without being taken for
    two parts.
    """
    raw: str = request.path_params[name]
    try:
        return decode_id(unquote_to_bytes(raw))
    except BadEvent as error:
        raise invalid(
            str(error).replace("the message key", f"{name} in the path"), "bad_id"
        ) from None


def query_parameters(model: type[BaseModel], *names: str) -> list[dict[str, Any]]:
    """OpenAPI parameters for the fields `names` (default: all) of a model that documents a query
    string.
    """
    schema = model.model_json_schema()
    found = []
    for name in names or tuple(schema["properties"]):
        field = dict(schema["properties"][name])
        parameter: dict[str, Any] = {
            "name": name,
            "in": "query",
            "required": False,
            "description": field.pop("description", ""),
        }
        if "examples" in field:
            parameter["example"] = field.pop("examples")[0]
        if name == "attr":  # free-form names: OpenAPI's way is one exploded object
            parameter |= {"style": "form", "explode": True}
        field.pop("title", None)
        found.append(parameter | {"schema": field})
    return found


_PATH_PARAMETERS = {
    "user_id": (
        "42",
        (
            "the user's id, percent-encoded (`/` as %2F); any id will do, an unknown user is "
            "answered with what is popular"
        ),
    ),
    "item_id": ("startup-9", "the item's id, percent-encoded"),
    "version": ("2026-11-22T10-00-00Z", "a published version"),
    "a": ("2026-11-15T03-00-00Z", "a published version"),
    "b": ("2026-11-22T10-00-00Z", "another one"),
    "item_type": ("startups", "kind of item, as the configured use case spells it in its path"),
    "role": ("developer", "role of the user, as the configured use case spells it in its path"),
}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "example": example,
            "description": text,
        }
        for name, (example, text) in _PATH_PARAMETERS.items()
        if f"{{{name}}}" in path
    ]
