"""Starts a server on loopback and waits until it answers.

Each server has a folder and a port of its own. `start()` returns after a real request is answered
(PING of Redis, the metadata of a broker), or raises ProcessFailed with one line. `kill()` is a
crash (SIGKILL); `start()` then brings the server back on the same folder and port.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from core.errors import ProcessFailed
from testing.ports import HOST, free_port, port_is_free
from testing.process import Child, end_leftovers

START_S = 120.0
"""Seconds until a server must answer.

Apache Kafka takes 9 s on two idle cores, several times that on busy ones.
"""


class Server:
    """A child process that answers on a port.

    A subclass gives its command and the request whose answer shows that it is ready.
    """

    name = "server"

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory, self._port = directory.absolute(), port
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port: that of the constructor, or else a free one; the same after a restart."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    @property
    def child(self) -> Child:
        """The process. Raises ProcessFailed before the first start."""
        if self._child is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._child

    def start(self) -> Self:
        """Start, and return once the server answers a request.

        Raises ProcessFailed: a port in use, a program or wheel is missing, the child ended.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._child is None:
            end_leftovers(self.directory)
        self._check_port(self.port)
        self._child = Child(
            self.name, self._command(), self.directory, self._environment(), cwd=self.directory
        )
        self._child.start()
        deadline = time.monotonic() + START_S
        while not self._answers():
            self._child.check()
            if time.monotonic() > deadline:
                message = self._child.describe(f"did not answer on {self.address} in {START_S:g} s")
                self._child.kill()
                raise ProcessFailed(message)
            time.sleep(0.02)
        self._child.check()
        return self

    def stop(self) -> None:
        """Stop the server cleanly; it may have ended already."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """Kill the process by SIGKILL, as a crash would."""
        self.child.kill()

    def restart(self) -> Self:
        """Stop cleanly and start again on the same folder and port."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _answers(self) -> bool:
        raise NotImplementedError

    def _check_port(self, port: int) -> None:
        if not port_is_free(port):
            raise ProcessFailed(
                f"{self.name}: port {port} on {HOST} is in use; stop what holds it or "
                f"choose another port"
            )


class Broker(Server):
    """A server that speaks the Kafka protocol."""

    def _answers(self) -> bool:
        """True when the broker lists itself in an answer to Metadata: its registration is done.

        The request: key 3, version 1, no topics.
        """
        client, correlation = b"eddyline", 42
        body = struct.pack(">hhih", 3, 1, correlation, len(client)) + client + struct.pack(">i", 0)
        answer = ask(self.port, struct.pack(">i", len(body)) + body, 4096)
        return (
            len(answer) >= 12
            and struct.unpack(">i", answer[4:8])[0] == correlation
            and struct.unpack(">i", answer[8:12])[0] > 0
        )


def ask(port: int, request: bytes, size: int, tls: ssl.SSLContext | None = None) -> bytes:
    """The first `size` bytes of the answer to `request`, or fewer; empty after a second without."""
    try:
        with (
            socket.create_connection((HOST, port), 1) as plain,
            tls.wrap_socket(plain, server_hostname=HOST) if tls else plain as connection,
        ):
            connection.settimeout(1)
            connection.sendall(request)
            return connection.recv(size)
    except OSError:
        return b""
