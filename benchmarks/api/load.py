"""Sends reads in a closed loop: `python -m benchmarks.load HOST:PORT` prints a report as JSON.

Each of N connections has one request under way. The client's own work is some 30 us a request, on a
core that the server does not use, so the server is the limit. Paths come from standard input, one a
line; each connection starts at another one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from functools import partial
from typing import cast

import msgspec
import uvloop


class Report(msgspec.Struct):
    """Result of one run. Latencies in milliseconds."""

    requests: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int
    first_failure: str = ""


class Connection(asyncio.Protocol):
    """One keep-alive connection in a closed loop, until `deadline`."""

    def __init__(
        self, requests: list[bytes], first: int, measure_from: float, deadline: float
    ) -> None:
        self._requests, self._next = requests, first
        self._from, self._deadline = measure_from, deadline
        self._buffer = bytearray()
        self._left = -1
        self._failed = False
        self.latencies: list[float] = []
        self.failures: list[bytes] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it
        self._transport = cast("asyncio.WriteTransport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.index(b"content-length:") + 15
            length = int(head[at : head.find(b"\r", at) if head.find(b"\r", at) > 0 else end])
            self._failed = not head.startswith(b"http/1.1 200")
            self._left = length - (len(self._buffer) - end - 4)
        else:
            self._left -= len(data)
        if self._left == 0:
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.failures.append(f"connection lost: {exc}".encode())
            self.done.set_result(None)

    def _send(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def _answered(self) -> None:
        now = time.perf_counter()
        if self._failed:
            self.failures.append(bytes(self._buffer[:300]))
        elif self._started >= self._from:
            self.latencies.append(now - self._started)
        self._buffer.clear()
        self._left = -1
        if now < self._deadline:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()


async def load(
    host: str, port: int, paths: list[str], connections: int, seconds: float, warm_up: float = 0.5
) -> Report:
    """Drive the server for `seconds` after `warm_up`, and report the answers."""
    requests = [f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode() for path in paths]
    loop = asyncio.get_running_loop()
    begin = time.perf_counter() + warm_up
    opened = []
    for number in range(connections):
        first = number * len(requests) // connections
        connect = partial(Connection, requests, first, begin, begin + seconds)
        _, connection = await loop.create_connection(connect, host, port)
        opened.append(connection)
    await asyncio.gather(*(connection.done for connection in opened))
    elapsed = time.perf_counter() - begin
    latencies = sorted(latency for connection in opened for latency in connection.latencies)
    failures = [failure for connection in opened for failure in connection.failures]

    def quantile(share: float) -> float:
        return (
            1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)]
            if latencies
            else float("inf")
        )

    return Report(
        len(latencies),
        elapsed,
        len(latencies) / elapsed,
        quantile(0.5),
        quantile(0.99),
        len(failures),
        failures[0].decode("latin-1") if failures else "",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="host:port")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    host, _, port = arguments.address.rpartition(":")
    report = uvloop.run(
        load(host, int(port), sys.stdin.read().split(), arguments.connections, arguments.seconds)
    )
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


if __name__ == "__main__":
    main()
