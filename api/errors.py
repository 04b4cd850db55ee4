"""Turns errors into answers: `{"error": <stable word>, "detail": <sentence for people>}`."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from api.schemas.answers import Error
from core.codec import encode_json
from core.errors import BadEvent

_log = structlog.get_logger(__name__)


class ApiError(Exception):
    """An answer other than success: HTTP status, a word for programs, a sentence for people."""

    def __init__(
        self, status: int, error: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        self.headers = headers

    def response(self) -> Response:
        """This error as an HTTP response."""
        return json_response(Error(error=self.error, detail=self.detail), self.status, self.headers)


def json_response(
    content: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """`content` (msgspec structs allowed) as a JSON response."""
    return Response(encode_json(content), status, headers, "application/json")


def invalid(detail: str, error: str = "invalid_parameter") -> ApiError:
    """422: a parameter or field is not acceptable."""
    return ApiError(422, error, detail)


def unavailable(error: str, detail: str) -> ApiError:
    """503: Kafka or Redis does not answer now; the client sends the request again."""
    return ApiError(503, error, detail, {"retry-after": "1"})


def internal() -> ApiError:
    """500: a defect of the server; the traceback is in the log, not in the answer."""
    return ApiError(500, "internal", "the server failed; its log has the cause")


async def on_api_error(_request: Request, error: Exception) -> Response:
    """Handler of ApiError."""
    assert isinstance(error, ApiError)
    return error.response()


async def on_bad_event(_request: Request, error: Exception) -> Response:
    """Handler of BadEvent: a body that breaks the event or catalogue contract."""
    assert isinstance(error, BadEvent)
    return ApiError(status_of(error.code), error.code, str(error)).response()


_NO_JSON = {"not_json", "empty", "byte_order_mark", "schema_registry"}


def status_of(code: str) -> int:
    """The HTTP status for the code of a BadEvent: 400 for no JSON, 413 for too large, else 422."""
    return 400 if code in _NO_JSON else 413 if code == "too_large" else 422


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Handler of errors that the framework raises: no such path, wrong method.

    OPTIONS of a path is answered with its methods.
    """
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"allow": ", ".join(methods(request))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    detail = (
        f"{request.method} {request.url.path}: {status.phrase.lower()}; /docs lists the routes"
        if status in (404, 405)
        else str(error.detail)
    )
    return ApiError(status.value, status.name.lower(), detail, headers).response()


def methods(request: Request) -> list[str]:
    """The methods of the request's path, over all its routes."""
    allowed = {"OPTIONS"}
    for route in request.app.router.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            allowed |= set(route.methods or ())
    return sorted(allowed | {"HEAD"} if "GET" in allowed else allowed)
