"""The door every request comes through: limits, keys, the time a request may take, and no exception past it."""

from __future__ import annotations

import asyncio
import time

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import READING_METHODS, Authorization
from api.errors import ApiError, internal
from api.metrics import Metrics
from core.settings import Settings

_log = structlog.get_logger(__name__)
MAX_QUERY_BYTES = 16 * 1024
"""Bytes of a query string: room for some hundred excluded ids."""
MAX_PATH_BYTES = 4 * 1024
"""Bytes of a path: two ids of 256 bytes, each byte percent-encoded, fit."""
_KNOWN_METHODS = READING_METHODS | {"POST", "PUT", "DELETE", "PATCH"}
_CLOSE = {"connection": "close"}
"""With a refused body still on its way, the connection cannot be used again."""


class Guard:
    """ASGI middleware around the whole app. Pure ASGI: Starlette's BaseHTTPMiddleware costs a task per request."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._authorization = Authorization(settings)
        self._max_body = settings.api_max_body_bytes
        self._timeout_s = settings.api_timeout_s
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        timeout = asyncio.timeout(self._timeout_s)
        error: ApiError | None
        try:
            error = self._refusal(scope)
            if error is None:
                if b"%" in (raw_path := scope["raw_path"]):
                    scope["path"] = raw_path.decode("latin-1")  # still encoded: see routing.path_id
                async with timeout:
                    await self._app(scope, receive if scope["method"] == "GET" else self._limited(receive), noting)
        except ClientDisconnect:
            status = 499  # nginx's number for a caller that went away; nobody reads the answer
        except ApiError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - the last resort: one bad request must not end the connection without an answer
            if isinstance(raised, TimeoutError) and timeout.expired():
                error = ApiError(503, "timeout", f"no answer within {self._timeout_s:g} s", _CLOSE)
                _log.warning("request took too long", method=scope["method"], path=scope["path"], seconds=self._timeout_s)
            else:
                error = internal()
                _log.exception("request failed", method=scope["method"], path=scope["path"])
        if error is not None and status == 0:
            await error.response()(scope, receive, noting)
        route = scope.get("route")
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        self._metrics.request(method, getattr(route, "path", "none"), status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            return ApiError(414, "query_too_long", f"the query string has more than {MAX_QUERY_BYTES} bytes", _CLOSE)
        if len(scope["raw_path"]) > MAX_PATH_BYTES:
            return ApiError(414, "path_too_long", f"the path has more than {MAX_PATH_BYTES} bytes", _CLOSE)
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or len(value) > 18 or int(value) > self._max_body):
                return self._too_large()
        return self._authorization.refusal(scope)

    def _limited(self, receive: Receive) -> Receive:
        """`receive` that counts: a chunked body tells no length beforehand."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, "body_too_large", f"the body has more than {self._max_body} bytes (API_MAX_BODY_BYTES)", _CLOSE)
