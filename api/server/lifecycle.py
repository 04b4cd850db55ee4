"""The life of one HTTP connection: which request is answered, how long a client may take, how the
connection ends.

A connection goes through phases: IDLE -> (first byte) HEAD -> (head complete) BODY -> (message
complete) IDLE. Independently of the phase, a request is being answered or not. `check_deadline`,
called every CHECK_S, closes a connection that stays in one phase for too long:

1. HEAD, or no byte since the connection was made: API_HEAD_TIMEOUT_S, answered with 408 if a part
   of a head has arrived;
2. IDLE after an answer: API_IDLE_TIMEOUT_S;
3. BODY while a request is being answered: API_TIMEOUT_S, by the guard (408); after the answer: the
   same, here;
4. a client that does not read what was written: API_WRITE_TIMEOUT_S.

A refused connection gets its answer after the answers to the requests before it, and is then
closed. The remaining bytes of its client are read and dropped for LINGER_S: closing a socket with
unread bytes resets the connection, and the client could lose the answer.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.errors import ApiError
from api.server.connections import Connections
from api.server.refusals import encoded, head_timeout

STREAM = "eddyline.stream"
"""Extension of the ASGI scope; its `limit_buffers` is called before an answer that is a stream."""
STREAM_BYTES = 4096
"""Bytes of a stream that wait in the system's buffer; the system may round it up."""
LINGER_S = 2.0
"""Seconds in which the client of a refused connection can read its answer."""
LINGER_BYTES = 1 << 20
"""Bytes that are read and dropped of a refused connection meanwhile; most clients stop sending a
large body before that.
"""


class Phase(enum.Enum):
    """What the next byte belongs to."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class _AnswerTransport:
    """The transport as one answer sees it; `close` lets the client read the answer first."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


def _limit_buffers(transport: asyncio.Transport) -> None:
    """Let little of a stream wait for its client, so that one who does not read is noticed.

    The buffers of the system would hold the samples of half an hour.
    """
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BYTES)
    transport.set_write_buffer_limits(0)


class ConnectionLifecycle(HttpToolsProtocol):
    """One connection of uvicorn, with deadlines, and counted among all of the server."""

    all_connections: Connections
    """Set on the class that api.server.protocol.limited makes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._phase = Phase.IDLE
        self._since = self.loop.time()  # of the latest change of phase, or of the end of an answer
        # not None: no more requests are read; the last bytes to write
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
        self.all_connections.forget(self)
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._active is not None:  # uvicorn disconnects only the newest request
            self._active.disconnected = True
            self._active.message_event.set()
        # no reference back to the connection, so that it is freed at once
        self._answer_transport.close = self.transport.close

    def pause_writing(self) -> None:
        """The client does not read: stop reading its requests meanwhile."""
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
        """Close this idle connection to make room for a new one."""
        if self._phase is Phase.HEAD:
            self.transport.write(encoded(head_timeout()))
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
                self._refuse(head_timeout())
        elif self._phase is Phase.BODY:
            if waited > settings.api_timeout_s:
                self.all_connections.count_refusal("body_timeout")
                self._end_now()
        elif waited > (
            settings.api_head_timeout_s if self.cycle is None else settings.api_idle_timeout_s
        ):
            self._end_now()

    def shutdown(self) -> None:
        """Finish the running answer, then close."""
        if self._ending is None:
            super().shutdown()

    # Answers

    def on_response_complete(self) -> None:
        """An answer is written: go on with the next request, if the client reads."""
        self.server_state.total_requests += 1
        self._active = None
        if not self.transport.is_closing() and not self._ended:
            self._since = self.loop.time()
            if not self.flow.write_paused:
                self._next()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active = cycle
        # of the transport, not of the connection: no reference back to it
        limit_buffers = partial(_limit_buffers, self.transport)
        cycle.scope["extensions"] = {STREAM: {"limit_buffers": limit_buffers}}
        super()._start_asgi_task(cycle, app)

    def _next(self) -> None:
        """Answer the next queued request; with none left, end the connection or wait for more."""
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._ending is not None:
            self._end()
        else:
            self.flow.resume_reading()
            self.all_connections.mark_idle(self)

    @property
    def _answering(self) -> bool:
        """Whether a request of this connection is being answered or queued.

        The newest one is answered last, so it alone decides.
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
        """Read no more requests; answer those that were read, then `error`, then close."""
        self.all_connections.count_refusal(limit or (error.error if error else ""))
        self._ending = encoded(error) if error is not None and error.status else b""
        # the newest request is the one with the invalid body
        if self._phase is Phase.BODY and error is not None:
            if self.pipeline:
                self.pipeline.popleft()
            elif self._answering:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                if self.cycle.response_started:
                    self._end_now()
                    return
            else:  # it was answered already
                self._ending = b""
        if not self._answering:
            self._end()
            return
        if not self._ending:
            (self.pipeline[0][0] if self.pipeline else self.cycle).keep_alive = False
        self.flow.pause_reading()

    def _close(self) -> None:
        """End the connection after an answer with `Connection: close`."""
        if self.transport.is_closing():
            return
        if self._phase is Phase.IDLE and self._ending is None:
            self._end_now()
        else:  # the client may still be sending
            self._ending = b""
            self._end()

    def _end(self) -> None:
        """Write the last bytes, and give the client time to read them."""
        self.transport.write(self._ending or b"")
        may_linger = self.all_connections.may_linger()
        self.all_connections.remove(self)
        self._ended, self._since = True, self.loop.time()
        if may_linger and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _end_now(self) -> None:
        """Close; bytes that are already written are still sent."""
        self._ended = True
        self.all_connections.remove(self)
        self.transport.close()

    def _abort(self, limit: str) -> None:
        """Close, and drop what the client has not read."""
        self.all_connections.count_refusal(limit)
        self._ended = True
        self.all_connections.remove(self)
        self.transport.abort()

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > LINGER_BYTES and self._ended:
            self.transport.close()
