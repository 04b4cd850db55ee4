"""HTTP/1.1 on one connection: uvicorn's protocol, with a limit on everything that a client can make
the server hold or wait for.

A connection goes through phases: IDLE -> (first byte) HEAD -> (head complete) BODY -> (message
complete) IDLE. Beside that, a request is being answered or not. `check_deadline`, called every
CHECK_S, closes what has been in one phase for too long:

1. HEAD, or no byte since the connection was made: API_HEAD_TIMEOUT_S, answered with 408 when a part
   of a head came;
2. IDLE after an answer: API_IDLE_TIMEOUT_S;
3. BODY while a request is being answered: API_TIMEOUT_S, by the guard (408); after the answer: the
   same, here;
4. a client that does not read what was written: API_WRITE_TIMEOUT_S.

Sizes are counted before and while the parser sees the bytes. A refused connection gets its answer
after those to the requests before it, and is then closed; its client's remaining bytes are read and
dropped for a moment, because closing a socket with unread bytes resets the connection, and the
client could lose the answer.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.errors import ApiError
from api.server import request_head
from api.server.connections import Connections

MAX_PIPELINED = 16
"""Requests of one connection that wait while another is answered.

Parsing is not stopped by them, so each costs memory and time at once.
"""
LINGER_S = 2.0
"""Seconds in which the client of a refused connection can read its answer."""
LINGER_BYTES = 1 << 20
"""Bytes that a refused connection may still send meanwhile: a client that was about to send a large
body stops before that.
"""


class Phase(enum.Enum):
    """What the next byte belongs to."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class _AnswerTransport:
    """What one answer does with the transport; `close` is the connection's own, which lets the
    client finish.
    """

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Made by the server through `limited`."""

    all_connections: Connections
    """Set on the class that `limited` makes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        settings = self.all_connections.settings
        self._max_head, self._max_headers = settings.api_max_head_bytes, settings.api_max_headers
        self._phase = Phase.IDLE
        self._since = self.loop.time()  # of the latest change of phase, or of the end of an answer
        self._head_bytes = 0  # of the complete parts of this head
        # wire bytes since the last part of the head, or of the body, was complete
        self._uncounted = 0
        # set: no more requests are taken; the last bytes to write
        self._ending: bytes | None = None
        self._ended = False
        self._dropped = 0
        # the request that is being answered; `cycle` is the newest one
        self._active: RequestResponseCycle | None = None
        self._blocked_since: float | None = None
        self._closing_since: float | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection, or refuse it."""
        super().connection_made(transport)
        self._answer_transport: Any = _AnswerTransport(transport, self._close)
        if refusal := self.all_connections.admit(self, self.client[0] if self.client else ""):
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.all_connections.lost(self)
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._active is not None:  # uvicorn tells only the newest request
            self._active.disconnected = True
            self._active.message_event.set()
        # no reference back to the connection, so that it is freed at once
        self._answer_transport.close = self.transport.close

    def data_received(self, data: bytes) -> None:
        """Feed the parser, within the limits."""
        if self._ending is not None:
            self._drop(data)
            return
        if self._phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        self._uncounted += len(data)
        try:
            self.parser.feed_data(data)
        # nothing here to upgrade to: the request itself is answered, as over HTTP/1.1
        except httptools.HttpParserUpgrade:
            self._refuse(None, "upgrade")
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ApiError) else _not_http(cause or error))
        else:
            if self._uncounted > self._max_head and self._ending is None:
                self._refuse(
                    _head_too_large(self._max_head)
                    if self._phase is Phase.HEAD
                    else _not_http("too much framing in the body")
                )

    def pause_writing(self) -> None:
        """The client does not read: take no more requests of it meanwhile."""
        super().pause_writing()
        self.flow.pause_reading()
        self._blocked_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._blocked_since = None
        if self._active is None and not self._ended and not self.transport.is_closing():
            self._next()

    def close_for_another(self) -> None:
        """Close a connection that waits, in favour of a new one."""
        if self._phase is Phase.HEAD:
            self.transport.write(_encoded(_head_timeout()))
        self._end_now()

    def check_deadline(self, now: float) -> None:
        """Close the connection if it has been in one phase for too long.

        `now`: the event loop's time.
        """
        settings = self.all_connections.settings
        waited = now - self._since
        if self.transport.is_closing():  # with bytes that the client has not read
            self._closing_since = self._closing_since or now
            if now - self._closing_since > settings.api_write_timeout_s:
                self._abort("write_timeout")
        elif (
            self._blocked_since is not None
            and now - self._blocked_since > settings.api_write_timeout_s
        ):
            self._abort("write_timeout")
        elif self._ended:
            if waited > LINGER_S:
                self.transport.close()
        elif self._answering or self._ending is not None or self.flow.read_paused:
            pass
        elif self._phase is Phase.HEAD:
            if waited > settings.api_head_timeout_s:
                self._refuse(_head_timeout())
        elif self._phase is Phase.BODY:
            if waited > settings.api_timeout_s:
                self.all_connections.count("body_timeout")
                self._end_now()
        elif waited > (
            settings.api_head_timeout_s if self.cycle is None else settings.api_idle_timeout_s
        ):
            self._end_now()

    def shutdown(self) -> None:
        """Finish what is being answered, then close."""
        if self._ending is None:
            super().shutdown()

    # The parser

    def on_message_begin(self) -> None:
        """A head begins."""
        self._enter(Phase.HEAD)
        self._head_bytes = self._uncounted = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._head_bytes += len(url)
        if self._head_bytes > self._max_head:
            raise ApiError(
                414,
                "uri_too_long",
                f"the request target has more than {self._max_head} bytes (API_MAX_HEAD_BYTES)",
                _CLOSE,
            )
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header; after the head, a trailer of a chunked body, which nothing here reads."""
        if self._phase is Phase.BODY:
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._max_head:
            raise _head_too_large(self._max_head)
        if len(self.headers) >= self._max_headers:
            raise ApiError(
                431,
                "too_many_headers",
                f"the head has more than {self._max_headers} headers (API_MAX_HEADERS)",
                _CLOSE,
            )
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A whole head: check it, then answer the request or queue it."""
        self.url = request_head.check(
            self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers
        )
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ApiError(0, "pipelined", "")
        self.all_connections.works(self)
        super().on_headers_complete()
        self.cycle.transport = self._answer_transport
        self._enter(Phase.BODY)
        self._uncounted = 0

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._uncounted = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        self._enter(Phase.IDLE)
        self._uncounted = 0
        super().on_message_complete()

    # Answers

    def on_response_complete(self) -> None:
        """An answer is written: go on with the next request, if its client reads."""
        self.server_state.total_requests += 1
        self._active = None
        if not self.transport.is_closing() and not self._ended:
            self._since = self.loop.time()
            if not self.flow.write_paused:
                self._next()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def _next(self) -> None:
        """Answer the next queued request; with none left, end the connection or wait for more."""
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._ending is not None:
            self._end()
        else:
            self.flow.resume_reading()
            self.all_connections.waits(self)

    @property
    def _answering(self) -> bool:
        """Whether a request of this connection is being answered or queued: the newest one is
        answered last.
        """
        return (
            self.cycle is not None
            and not self.cycle.response_complete
            and not self.cycle.disconnected
        )

    def _enter(self, phase: Phase) -> None:
        self._phase, self._since = phase, self.loop.time()

    # The end

    def _refuse(self, error: ApiError | None, limit: str = "") -> None:
        """Take no more requests; answer those that were taken, then `error`, then close."""
        self.all_connections.count(limit or (error.error if error else ""))
        self._ending = _encoded(error) if error is not None and error.status else b""
        # the request whose body is broken: it is the newest one
        if self._phase is Phase.BODY and error is not None:
            if self.pipeline:
                self.pipeline.popleft()
            elif self._answering:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                if self.cycle.response_started:
                    self._end_now()
                    return
            else:  # it has its answer already
                self._ending = b""
        if not self._answering:
            self._end()
            return
        if not self._ending:
            (self.pipeline[0][0] if self.pipeline else self.cycle).keep_alive = False
        self.flow.pause_reading()

    def _close(self) -> None:
        """End the connection after an answer that says so."""
        if self.transport.is_closing():
            return
        if self._phase is Phase.IDLE and self._ending is None:
            self._end_now()
        else:  # the client may still be sending
            self._ending = b""
            self._end()

    def _end(self) -> None:
        """Write the last bytes, and let the client read them."""
        self.transport.write(self._ending or b"")
        may_linger = self.all_connections.may_linger()
        self.all_connections.leaves(self)
        self._ended, self._since = True, self.loop.time()
        if may_linger and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _end_now(self) -> None:
        """Close; what is written still goes out."""
        self._ended = True
        self.all_connections.leaves(self)
        self.transport.close()

    def _abort(self, limit: str) -> None:
        """Close, and drop what the client has not read."""
        self.all_connections.count(limit)
        self._ended = True
        self.all_connections.leaves(self)
        self.transport.abort()

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > LINGER_BYTES and self._ended:
            self.transport.close()


def limited(connections: Connections) -> type[LimitedProtocol]:
    """The protocol class of a server that holds `connections`: uvicorn makes the instances, and
    passes nothing of ours.
    """
    return type("LimitedProtocol", (LimitedProtocol,), {"all_connections": connections})


_CLOSE = {"connection": "close"}


def _head_too_large(most: int) -> ApiError:
    return ApiError(
        431,
        "head_too_large",
        f"the request's head has more than {most} bytes (API_MAX_HEAD_BYTES)",
        _CLOSE,
    )


def _head_timeout() -> ApiError:
    return ApiError(
        408,
        "head_timeout",
        "the request's head did not arrive in time (API_HEAD_TIMEOUT_S)",
        _CLOSE,
    )


def _not_http(error: object) -> ApiError:
    return ApiError(400, "bad_request", f"not a valid request of HTTP/1.1: {error}", _CLOSE)


def _encoded(error: ApiError) -> bytes:
    """The bytes of an answer that closes the connection."""
    response = error.response()
    headers = {b"connection": b"close", **dict(response.raw_headers)}
    lines = [b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode())]
    lines += [name + b": " + value for name, value in headers.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body)
