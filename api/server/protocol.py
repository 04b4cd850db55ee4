"""HTTP/1.1 on one connection: uvicorn's protocol with limits on the size of what a client sends.

Sizes are counted before and while the parser sees the bytes. api/server/lifecycle.py limits the
time that a connection may take.
"""

from __future__ import annotations

from typing import Any

import httptools

from api.errors import ApiError
from api.server import request_head
from api.server.connections import Connections
from api.server.lifecycle import ConnectionLifecycle, Phase
from api.server.refusals import head_too_large, not_http, too_many_headers, uri_too_long

MAX_PIPELINED = 16
"""Requests of one connection that may wait while another is answered.

The parser goes on meanwhile, so each costs memory and time at once.
"""


class LimitedProtocol(ConnectionLifecycle):
    """One connection. Made by the server through `limited`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        settings = self.all_connections.settings
        self._max_head, self._max_headers = settings.api_max_head_bytes, settings.api_max_headers
        self._head_bytes = 0  # of the complete parts of this head
        # wire bytes since the last part of the head, or of the body, was complete
        self._uncounted = 0

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
        # no upgrade is supported: the request is answered over HTTP/1.1
        except httptools.HttpParserUpgrade:
            self._refuse(None, "upgrade")
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ApiError) else not_http(cause or error))
        else:
            if self._uncounted > self._max_head and self._ending is None:
                self._refuse(
                    head_too_large(self._max_head)
                    if self._phase is Phase.HEAD
                    else not_http("too much framing in the body")
                )

    def on_message_begin(self) -> None:
        """A head begins."""
        self._enter(Phase.HEAD)
        self._head_bytes = self._uncounted = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._head_bytes += len(url)
        if self._head_bytes > self._max_head:
            raise uri_too_long(self._max_head)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header; after the head, a trailer of a chunked body, which nothing here reads."""
        if self._phase is Phase.BODY:
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._max_head:
            raise head_too_large(self._max_head)
        if len(self.headers) >= self._max_headers:
            raise too_many_headers(self._max_headers)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A whole head: check it, then answer the request or queue it."""
        self.url = request_head.check(
            self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers
        )
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ApiError(0, "pipelined", "")
        self.all_connections.mark_busy(self)
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


def limited(connections: Connections) -> type[LimitedProtocol]:
    """The protocol class of a server with these `connections`.

    uvicorn makes the instances, and passes no arguments of ours: the class has the attribute.
    """
    return type("LimitedProtocol", (LimitedProtocol,), {"all_connections": connections})
