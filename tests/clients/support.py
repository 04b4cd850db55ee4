"""Runs both HTTP clients through one blocking interface, against the API or a scripted server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import anyio.from_thread
import httpx
import pytest
from redis import Redis

from core.settings import Settings
from eddyline_client import AsyncEddylineClient, EddylineClient, Event, RetryPolicy
from tests.api.world import KEY, publish, store_items
from tests.conftest import Spawn
from tests.engines.world import ITEMS
from tests.support import eventually

Client = Any
"""EddylineClient, or `_Blocking` around AsyncEddylineClient: both have the same methods."""
KINDS = ["blocking", "async"]
each_client = pytest.mark.parametrize("kind", KINDS)


class _Blocking:
    """An AsyncEddylineClient whose coroutines run in the event loop of another thread."""

    def __init__(
        self, client: AsyncEddylineClient, portal: anyio.from_thread.BlockingPortal
    ) -> None:
        self._client, self._portal = client, portal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._portal.call(
            partial(method, *arguments, **options)
        )


@contextmanager
def client(kind: str, base_url: str, **options: Any) -> Iterator[Client]:
    """A connected client of that kind."""
    if kind == "blocking":
        with EddylineClient(base_url, **options) as blocking:
            yield blocking
        return
    with anyio.from_thread.start_blocking_portal() as portal:
        connected = portal.call(partial(AsyncEddylineClient, base_url, **options))
        with portal.wrap_async_context_manager(connected) as asynchronous:
            yield _Blocking(asynchronous, portal)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    """Whether the server at `url` is ready."""
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def serve_world(settings: Settings, redis: Redis, spawn: Spawn) -> str:
    """Start a real API with the world of tests/api/world.py, and ingest. Returns the URL."""
    publish(settings)
    store_items(redis, *ITEMS)
    url = f"http://127.0.0.1:{free_port()}"
    spawn("streams", "ingest")
    spawn(
        "api",
        API_PORT=url.rpartition(":")[2],
        API_KEYS=KEY,
        REFRESH_S="0.05",
        API_AFTER_S="25",
        API_TIMEOUT_S="30",
    )
    eventually(lambda: answers(url), "the API answers", 60)
    return url


class Reply(NamedTuple):
    """What the scripted server does with one request: answer, or (status 0) close the connection
    without an answer.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


class Request(NamedTuple):
    """A request that the scripted server received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@contextmanager
def scripted(replies: Sequence[Reply]) -> Iterator[tuple[str, list[Request]]]:
    """A real server that answers with `replies` in order, and then always with the last one;
    what it was sent.
    """
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            reply = replies[min(len(requests), len(replies) - 1)]
            headers = {name.lower(): value for name, value in self.headers.items()}
            requests.append(Request(self.command, self.path, headers, body))
            if reply.status == 0:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"content-length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_DELETE = _reply  # noqa: N815 - the names that the base class calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class has
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()


QUICK = RetryPolicy(attempts=4, first_wait_s=0.01, longest_wait_s=0.02)
EMPTY = (
    b'{"method_used":"popular","fallbacks":[],"model_version":null,"degraded":false,'
    b'"recommendations":[]}'
)
BUSY = Reply(503, b'{"error":"log_unavailable","detail":"the broker is away"}')


def like(user_id: str = "42", item_id: str = "pay", **fields: object) -> Event:
    return Event(user_id=user_id, item_id=item_id, event_type="like", **fields)  # type: ignore[arg-type]
