"""Makes a broker refuse the first messages that it gets, as if it did not lead the partition yet.

A broker that has no message of a producer in a partition accepts any number as the first
(KAFKA-15591), so it writes what was sent behind the refused request.
"""

from __future__ import annotations

import select
import socket
import struct
import threading

from testing.ports import HOST
from testing.proxy import Proxy

_PRODUCE = 0
"""Kafka's number of the request that has messages."""
_CORRUPT_MESSAGE, _NOT_LEADER = 2, 6
_FOLLOWS_S = 1.0
"""Seconds that the first request waits for one behind it."""


class RefusingProxy(Proxy):
    """Forwards requests to the broker on `port` of loopback, and changes its address in the
    answers to that of the proxy.

    The first request with messages waits for one behind it, and is damaged, so that the broker
    refuses it and writes the other one. The answer to it is changed: the broker does not lead the
    partition. Knows the layout of versions 9 to 12 of that answer.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.has_request = threading.Event()
        """Set when the first request with messages has come."""
        self.has_refused = threading.Event()
        """Set before its answer is forwarded."""
        self._first = threading.Lock()
        self._refused: tuple[socket.socket, int] | None = None
        """Connection of the client, and number of the request that is refused."""

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        while request := _frame(client):
            kind, _, number = struct.unpack_from(">hhi", request, 4)
            if kind == _PRODUCE and self._first.acquire(blocking=False):
                self._refused = client, number
                self.has_request.set()
                request = _damaged(request)
                if select.select([client], [], [], _FOLLOWS_S)[0]:
                    request += _frame(client)
            server.sendall(request)

    def _forward_answers(self, server: socket.socket, client: socket.socket) -> None:
        own, proxy = (HOST.encode() + struct.pack(">i", port) for port in (self._target, self.port))
        while answer := _frame(server):
            if self._refused == (client, struct.unpack_from(">i", answer, 4)[0]):
                answer = _as_not_leader(answer)
                self.has_refused.set()
            client.sendall(answer.replace(own, proxy))


def _frame(connection: socket.socket) -> bytes:
    """The next request or answer with its length of four bytes; empty at the end."""
    head = connection.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return b""
    return head + connection.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)


def _damaged(request: bytes) -> bytes:
    """The request with one byte of its last message changed: the checksum is wrong then."""
    return request[:-12] + bytes([request[-12] ^ 0xFF]) + request[-11:]


def _as_not_leader(answer: bytes) -> bytes:
    """The answer with another error. Raises ValueError when it does not refuse a damaged message.

    Before the error come: length and number of four bytes each, one byte of tags, the count of
    topics, the length of the name, the name, the count of partitions, the partition of four bytes.
    """
    name = answer[10] - 1
    at = 11 + name + 1 + 4
    if struct.unpack_from(">h", answer, at)[0] != _CORRUPT_MESSAGE:
        raise ValueError(f"no refused message in {answer!r}")
    return answer[:at] + struct.pack(">h", _NOT_LEADER) + answer[at + 2 :]
