"""Attacks an API beside the ordinary reads of `benchmarks.door`.

Each attack has a limit of connections and of time, and stops by itself. `python -m
benchmarks.door_attacks NAME 127.0.0.1:PORT --seconds S` runs one; it refuses any address but
loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable

import uvloop

Attack = Callable[[str, int, float], Awaitable[None]]
"""Host, port, and the event loop's time at which it ends."""

KEY = "benchmark"
POST = f"POST /api/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n".encode()
READ = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
IDLE = 1300
"""Connections that wait: more than API_MAX_CONNECTIONS, and more than `ulimit -n 1024` allows.
"""
PAUSE_S = 0.2
"""Seconds until a refused attacker sends again: these attacks use up what a connection needs; they
are no floods of connections or requests.
"""
REOPEN_S = 2.0
"""The same for each of IDLE connections."""


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(host, port)


def _time() -> float:
    return asyncio.get_running_loop().time()


async def _again(
    host: str,
    port: int,
    end: float,
    one: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    pause_s: float = PAUSE_S,
) -> None:
    """`one` on connection after connection, `pause_s` after each, until `end`."""
    while _time() < end:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout_at(end):
                reader, writer = await _connect(host, port)
                try:
                    await one(reader, writer)
                finally:
                    writer.transport.abort()
        await asyncio.sleep(pause_s)


def _sending(beginning: bytes, part: bytes, most: int, connections: int) -> Attack:
    """`beginning`, then `part` again and again up to `most` bytes or the refusal, on each of
    `connections`.
    """

    async def one(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        for _ in range(most // len(part)):
            writer.write(part)
            await writer.drain()

    async def attack(host: str, port: int, end: float) -> None:
        await asyncio.gather(*(_again(host, port, end, one) for _ in range(connections)))

    return attack


def _holding(beginning: bytes, part: bytes, connections: int, every_s: float) -> Attack:
    """`connections` at once that send `beginning`, then `part` every `every_s` seconds, and nothing
    more; closed ones are opened again.
    """

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if beginning:
            writer.write(beginning)
        while not reader.at_eof():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await reader.read(4096)
            if part:
                writer.write(part)

    async def attack(host: str, port: int, end: float) -> None:
        async def after(number: int) -> None:
            await asyncio.sleep(number / connections)  # all within the first second
            await _again(host, port, end, one, REOPEN_S)

        await asyncio.gather(*(after(number) for number in range(connections)))

    return attack


def _unread(requests: bytes, connections: int) -> Attack:
    """`requests` again and again on each of `connections`, which read nothing."""

    async def one(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not writer.transport.is_closing():
            writer.write(requests)
            await writer.drain()
            await asyncio.sleep(PAUSE_S)

    async def attack(host: str, port: int, end: float) -> None:
        await asyncio.gather(*(_again(host, port, end, one) for _ in range(connections)))

    return attack


def _calling(request: bytes, callers: int) -> Attack:
    """`request` by `callers` at once, each as soon as it has its answer; after a 429 each waits for
    as long as Retry-After says.
    """

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            await reader.readexactly(int(fields[b"content-length"]))
            await asyncio.sleep(float(fields.get(b"retry-after", 0)))

    async def attack(host: str, port: int, end: float) -> None:
        await asyncio.gather(*(_again(host, port, end, one) for _ in range(callers)))

    return attack


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _bulk() -> bytes:
    fields = {"item_id": "startup-1", "event_type": "view", "timestamp": 1.75e9}
    body = json.dumps(
        [
            {"event_id": str(number), "user_id": str(number % 1000), **fields}
            for number in range(1000)
        ]
    ).encode()
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


ATTACKS: dict[str, Attack] = {
    "long-header": _sending(READ[:-2] + b"X-Long: ", b"a" * 65536, 60 << 20, 4),
    "many-headers": _sending(READ[:-2], b"X-Many: a\r\n" * 5000, 60 << 20, 4),
    "idle": _holding(b"", b"", IDLE, 3600),
    "half-heads": _holding(b"GET /api/popular HTTP/1.1\r\nX-Slow: ", b"a", IDLE, 1.0),
    "slow-bodies": _holding(
        (
            f"POST /api/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: "
            f"1000\r\n\r\n"
        ).encode(),
        b" ",
        100,
        1.0,
    ),
    "pipelining-unread": _unread(READ * 7000, 20),
    "answers-unread": _unread(_get("/openapi.json"), 20),
    "broken": _sending(b"NONSENSE\r\n\r\n", b"a", 1, 4),
    "similar-users": _calling(_get("/api/users/1/similar?limit=50"), 4),
    "similar-users-16": _calling(_get("/api/users/1/similar?limit=50"), 16),
    "explain": _calling(_get("/api/explain/1/startup-7"), 4),
    "metrics": _calling(_get("/metrics"), 4),
    "bulk-events": _calling(_bulk(), 1),
}
"""By the name of its row in benchmarks/results/results.json, which begins with `door-`."""


async def run(name: str, host: str, port: int, seconds: float) -> None:
    """One attack, for `seconds`."""
    # At the end of an attack nothing reads the error of a refused write.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    await ATTACKS[name](host, port, _time() + seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("address", help="127.0.0.1:port")
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    host, _, port = arguments.address.rpartition(":")
    if host != "127.0.0.1":
        parser.error("only 127.0.0.1 may be attacked")
    uvloop.run(run(arguments.name, host, int(port), min(arguments.seconds, 60.0)))


if __name__ == "__main__":
    main()
