"""A running API with low limits, and the raw sockets that tests talk to it with."""

from __future__ import annotations

import http.client
import re
import socket
import sys
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from core.settings import Settings
from testing.process import Child, settings_environment
from testing.redis import RedisServer
from tests.api.world import port_of
from tests.support import eventually

CONNECTIONS, BY_ADDRESS = 24, 16
OTHER = "127.0.0.9"
"""Another address of this machine, for clients beside those at 127.0.0.1."""
ALIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /api/events HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\n"
DEADLINE_S = 60.0


@dataclass
class Server:
    """A running API; `log` of it, and how to talk to it."""

    child: Child
    port: int
    topic: str

    def connect(self, source: str = "127.0.0.1", receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(DEADLINE_S)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", self.port))
        return connection

    def read(self, path: str = "/api/popular", source: str = OTHER) -> tuple[int, bytes]:
        """An ordinary request on a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=DEADLINE_S, source_address=(source, 0)
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        match = re.search(
            rf"^{re.escape(name)} ([0-9.e+]+)$", self.read("/metrics")[1].decode(), re.MULTILINE
        )
        return float(match[1]) if match else 0.0

    def refused(self, limit: str) -> float:
        return self.metric(f'eddyline_api_refused_total{{limit="{limit}"}}')

    def quiet(self) -> None:
        """Wait until only the connection of this request is open."""
        eventually(lambda: self.metric("eddyline_api_connections") == 1, "no connection is open")


def launch(settings: Settings, limit: str = "-S -n 64") -> Child:
    """`python -m api` under `ulimit <limit>`."""
    command = ["bash", "-c", f'ulimit {limit}; exec "$0" "$@"', sys.executable, "-m", "api"]
    return Child("api", command, settings.models_path, settings_environment(settings)).start()


def start(settings: Settings, limit: str = "-S -n 64") -> Server:
    """`python -m api` under `ulimit <limit>`, once it serves."""
    child = launch(settings, limit)

    def port() -> int | None:
        child.check()
        return port_of(child.log.read_text())

    server = Server(child, eventually(port, "the API serves"), settings.interactions_topic)
    assert server.read("/health/live") == (200, b'{"alive":true}')
    return server


def limits(
    redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, **changed: object
) -> Settings:
    return Settings(
        _env_file=None,
        kafka_bootstrap_servers="127.0.0.1:9",
        redis_url=SecretStr(redis.url),
        models_path=tmp_path_factory.mktemp("limits"),
        api_port=0,
        api_keys="k",
        enable_two_tower=False,
        **changed,
    )


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection. A reset counts as closed."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def statuses(answers: bytes | bytearray) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]
