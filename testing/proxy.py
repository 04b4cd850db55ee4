"""Forwards TCP connections on loopback to a server that a test can change, in segments of a size.

As a host name: a new connection goes to the server that the name stands for now, an open one stays
with the server it was made to.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from testing.ports import HOST, free_port

_PAUSE_S = 0.02
"""Seconds between two segments, so that the receiver gets them one by one."""


class Proxy:
    """Listens on a free port of loopback and forwards to `port` of loopback."""

    def __init__(self, port: int, segment: int = 0) -> None:
        """`segment`: most bytes of an answer that are sent at once; 0: all that have arrived."""
        self.port, self._target, self._segment = free_port(), port, segment
        self._listener = socket.create_server((HOST, self.port))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_closed = False

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    def point_to(self, port: int) -> None:
        """New connections go to this port."""
        self._target = port

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self._target), 5)
            except OSError:  # as a server that is down
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for forward, source, sink in (
                (self._forward_requests, client, server),
                (self._forward_answers, server, client),
            ):
                threading.Thread(
                    target=self._forward, args=(forward, source, sink), name="proxy", daemon=True
                ).start()

    def _forward(
        self,
        forward: Callable[[socket.socket, socket.socket], None],
        source: socket.socket,
        sink: socket.socket,
    ) -> None:
        """Run one direction of a connection; its end ends both."""
        with contextlib.suppress(OSError):
            forward(source, sink)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source}
        source.close()

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(1 << 16):
            server.sendall(data)

    def _forward_answers(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(1 << 16):
            segment = self._segment or len(data)
            for start in range(0, len(data), segment):
                if start:
                    time.sleep(_PAUSE_S)
                client.sendall(data[start : start + segment])
