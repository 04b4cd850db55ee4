"""Wraps the app: checks limits and keys, ends late requests, turns exceptions into answers."""

from __future__ import annotations

import asyncio
import time

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ApiError, internal
from api.metrics import Metrics
from api.middleware import deadline
from api.middleware.auth import READING_METHODS, Authorization
from api.middleware.rate_limit import RateLimit
from core.settings import Settings

_log = structlog.get_logger(__name__)
MAX_QUERY_BYTES = 16 * 1024
"""Bytes of a query string: enough for some hundred excluded ids."""
MAX_PATH_BYTES = 4 * 1024
"""Bytes of a path: two ids of 256 bytes, each byte percent-encoded, fit."""
_KNOWN_METHODS = READING_METHODS | {"POST", "PUT", "DELETE", "PATCH"}
_CLOSE = {"connection": "close"}
"""A refused body may still arrive, so the connection cannot be used again."""


class _Body:
    """`receive` that limits the bytes of a body, also of a chunked one.

    `awaited`: the app is waiting for the next part of it.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._received = 0
        self.awaited = False

    async def __call__(self) -> Message:
        self.awaited = True
        message = await self._receive()
        self.awaited = False
        self._received += len(message.get("body", b""))
        if self._received > self._most:
            raise _too_large(self._most)
        return message


class _Answer:
    """`send` that keeps the status, and leaves out the body of an answer to HEAD."""

    def __init__(self, send: Send, head: bool) -> None:
        self._send, self._head = send, head
        self.status = 0
        self.began_at = 0.0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.began_at = time.perf_counter()
        elif self._head:
            message = {**message, "body": b""}
        await self._send(message)


class Guard:
    """ASGI middleware around the whole app.

    Pure ASGI: Starlette's BaseHTTPMiddleware costs a task per request.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._authorization = Authorization(settings)
        self._rate = RateLimit(
            settings.api_rate_per_s, settings.api_rate_burst, self._authorization
        )
        self._max_body = settings.api_max_body_bytes
        self._timeout_s = settings.api_timeout_s
        self._root_path = settings.api_root_path
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is not HTTP.

        HEAD is answered as GET, without the body.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        if self._root_path:
            scope = _without_prefix(scope, self._root_path)
        method = scope["method"]
        answer = _Answer(send, method == "HEAD")
        if method == "HEAD":
            scope = {**scope, "method": "GET", "is_head": True}
        body = None if scope["method"] == "GET" else _Body(receive, self._max_body)
        try:
            error = self._refusal(scope) or await self._call(scope, receive, body, answer)
            if error is not None and answer.status == 0:
                await error.response()(scope, receive, answer)
        except ClientDisconnect:
            # nginx's status for a client that has disconnected
            answer.status = 499
        route = scope.get("route")
        label = method if method in _KNOWN_METHODS else "other"
        # a stream is answered when it begins: it ends when its client goes away
        answered = answer.began_at if "is_stream" in scope else time.perf_counter()
        path = getattr(route, "path", "none")
        self._metrics.count_request(label, path, answer.status, answered - started)

    async def _call(
        self, scope: Scope, receive: Receive, body: _Body | None, answer: _Answer
    ) -> ApiError | None:
        """Call the app. Returns the error to answer instead. Raises ClientDisconnect."""
        if b"%" in (raw_path := scope["raw_path"]):
            scope["path"] = raw_path.decode("latin-1")  # still encoded: see routing.path_id
        timeout = asyncio.timeout(self._timeout_s)
        try:
            async with timeout:
                deadline.current.set(timeout)
                await self._app(scope, body or receive, answer)
        except ClientDisconnect:
            raise
        except ApiError as error:
            return error
        except Exception as raised:  # noqa: BLE001 - every request gets an answer
            if isinstance(raised, TimeoutError) and timeout.expired():
                late = self._too_late(body)
                _log.warning(
                    "request_timed_out",
                    error=late.error,
                    method=scope["method"],
                    path=scope["path"],
                    timeout_s=self._timeout_s,
                )
                return late
            _log.exception("request_failed", method=scope["method"], path=scope["path"])
            return internal()
        return None

    def _refusal(self, scope: Scope) -> ApiError | None:
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            return ApiError(
                414,
                "query_too_long",
                f"the query string has more than {MAX_QUERY_BYTES} bytes",
                _CLOSE,
            )
        if len(scope["raw_path"]) > MAX_PATH_BYTES:
            return ApiError(
                414, "path_too_long", f"the path has more than {MAX_PATH_BYTES} bytes", _CLOSE
            )
        for name, value in scope["headers"]:
            if name == b"content-length" and (
                not value.isdigit() or len(value) > 18 or int(value) > self._max_body
            ):
                return _too_large(self._max_body)
        return self._authorization.refusal(scope) or self._rate.refusal(scope)

    def _too_late(self, body: _Body | None) -> ApiError:
        if body is not None and body.awaited:
            return ApiError(
                408,
                "body_timeout",
                f"the body did not arrive within {self._timeout_s:g} s (API_TIMEOUT_S)",
                _CLOSE,
            )
        return ApiError(503, "timeout", f"no answer within {self._timeout_s:g} s", _CLOSE)


def _without_prefix(scope: Scope, prefix: str) -> Scope:
    """The request as it would be without `prefix`, which a proxy may have passed on.

    Routes, keys and rates then see one path. The prefix is removed once, and only here.
    """
    raw: bytes = scope["raw_path"]
    if raw != prefix.encode() and not raw.startswith(f"{prefix}/".encode()):
        return scope
    return {
        **scope,
        "raw_path": raw[len(prefix) :] or b"/",
        "path": scope["path"][len(prefix) :] or "/",
    }


def _too_large(most: int) -> ApiError:
    return ApiError(
        413, "body_too_large", f"the body has more than {most} bytes (API_MAX_BODY_BYTES)", _CLOSE
    )
