"""Sends what happens now as server-sent events, one a second: `GET /api/live`.

One task makes the samples for all listeners, and only while somebody listens. A listener gets the
latest sample when it can be written: one that reads slowly misses samples, and one that does not
read at all is closed by API_WRITE_TIMEOUT_S. A stream has no time limit of its own.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.errors import ApiError, invalid
from api.middleware import deadline
from api.page.sampler import Sampler
from api.schemas.document import DocumentedApp
from api.server.lifecycle import STREAM
from api.service import Service
from core.codec import encode_json

EVERY_S = 1.0
LINGER_S = 10.0
"""Seconds that samples go on without a listener, so that a page that is loaded again finds them."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"connection", b"close"),  # its buffers are small
    (b"x-accel-buffering", b"no"),  # nginx would collect the events
]
_log = structlog.get_logger(__name__)


class Live:
    """The route, and the task that makes samples."""

    def __init__(self, service: Service) -> None:
        self._service, self._most = service, service.settings.api_live_listeners
        self._sampler: Sampler | None = None
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes] | None = None
        self._listeners = 0
        self._left_at = 0.0
        self._ended = False
        self.samples = 0
        """Samples that were made, for whatever number of listeners."""
        service.end_streams.append(self.stop)

    def register(self, app: DocumentedApp) -> None:
        """Add the route to `app`."""
        app.add_route("/api/live", self.listen, include_in_schema=False)

    async def listen(self, request: Request) -> Response:
        """Send one sample a second until the client goes away; `samples`: so many.

        Raises ApiError 429 at API_LIVE_LISTENERS.
        """
        text = request.query_params.get("samples", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise invalid(f"samples must be a whole number, not {text[:100]!r}")
        if self._listeners >= self._most:
            self._service.metrics.count_refusal("live_listeners")
            raise ApiError(
                429,
                "too_many_listeners",
                f"{self._listeners} pages listen to this process (API_LIVE_LISTENERS)",
                {"retry-after": "10"},
            )
        return _Stream(self, int(text))

    async def send(self, receive: Receive, send: Send, most: int) -> None:
        """Send samples to one listener until it goes away, the server stops, or `most` are sent."""
        deadline.disable()
        gone = asyncio.create_task(_disconnected(receive), name="live-listener")
        self._listeners += 1
        sent = 0
        try:
            while not gone.done() and not self._ended and (not most or sent < most):
                sample = self._sample()
                both: set[asyncio.Future[Any]] = {gone, sample}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if sample.done():
                    await send(_part(sample.result(), more=True))
                    sent += 1
        finally:
            gone.cancel()
            self._listeners -= 1
            self._left_at = time.monotonic()
        await send(_part(b"", more=False))

    def _sample(self) -> asyncio.Future[bytes]:
        """The next sample; the first one starts the task."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            # without the context of the request that happens to be the first
            self._task = asyncio.create_task(self._run(), name="live-samples", context=Context())
        return self._next

    async def _run(self) -> None:
        """Make samples until nobody has listened for LINGER_S."""
        if self._sampler is None:
            self._sampler = Sampler(self._service, self._service.metric_families)
        sampler = self._sampler
        sampler.forget()
        probing = asyncio.create_task(sampler.prober.run(), name="live-probe")
        try:
            while self._listeners or time.monotonic() - self._left_at < LINGER_S:
                began = time.monotonic()
                try:
                    numbers = await sampler.sample(self._listeners)
                except Exception:  # noqa: BLE001 - the listeners get the next one
                    _log.exception("live_sample_failed")
                else:
                    self._deliver(b"data: " + encode_json(numbers) + b"\n\n")
                await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))
        finally:
            probing.cancel()

    def _deliver(self, sample: bytes) -> None:
        self.samples += 1
        waiting, self._next = self._next, None
        if waiting is not None:
            waiting.set_result(sample)

    async def stop(self) -> None:
        """End all streams: the server waits for its answers before it ends."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._next is not None:
            self._deliver(b"")
        if self._sampler is not None:
            await self._sampler.close()
            self._sampler = None


class _Stream(Response):
    """The answer to one listener."""

    def __init__(self, live: Live, most: int) -> None:
        super().__init__()
        self._live, self._most = live, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["is_stream"] = True
        if (extension := scope.get("extensions", {}).get(STREAM)) is not None:
            extension["limit_buffers"]()
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if not scope.get("is_head"):
            await self._live.send(receive, send, self._most)
        else:
            await send(_part(b"", more=False))


def _part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
