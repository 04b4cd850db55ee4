"""The probes of `python -m benchmarks.freshness`: post an event, read until an answer counts it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any, NamedTuple

KEY = "freshness"
CONNECTIONS = 4
AGAIN_S = 0.001
"""Seconds between two reads of a probe: half of it is in the measured time."""
GIVE_UP_S = 30.0


class Probe(NamedTuple):
    """Milliseconds from before the POST until its answer (`accepted`) and until a read counted the
    event (`visible`). `stale`: no read counted it.
    """

    accepted: float
    visible: float
    stale: bool


class Connection:
    """One keep-alive connection, one request at a time."""

    async def open(self, port: int) -> Connection:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer's JSON. Raises RuntimeError unless it is a success."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: "
            f"{KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        answer_head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer_head.split(b"content-length:")[1].split(b"\r\n", 1)[0])
        text = await self._reader.readexactly(length)
        if not answer_head.startswith(b"http/1.1 20"):
            raise RuntimeError(f"{method} {path}: {text[:300]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def probe(connection: Connection, user: int, number: int, waiting: bool) -> Probe:
    """Post an event of `user` and read until it is in the answer.

    Raises RuntimeError when an answer counts it and shows its item.
    """
    path = f"/api/recommendations/startups/for-developer/{user}?limit=10"
    before = await connection.request("GET", path)
    item_id = before["recommendations"][0]["item_id"]
    event = {
        "event_id": f"probe-{number}",
        "user_id": str(user),
        "item_id": item_id,
        "event_type": "like",
        "timestamp": time.time(),
    }
    began = time.perf_counter()
    token = (await connection.request("POST", "/api/events", event))["results"][0]["token"]
    accepted = time.perf_counter()
    while True:
        answer = await connection.request("GET", f"{path}&after={token}" if waiting else path)
        now = time.perf_counter()
        if (
            answer["interaction_count"] > before["interaction_count"]
            or waiting
            or now - began > GIVE_UP_S
        ):
            break
        await asyncio.sleep(AGAIN_S)
    stale = answer["interaction_count"] == before["interaction_count"]
    if not stale and (
        item_id in [line["item_id"] for line in answer["recommendations"]]
        or answer["as_of"] != answer["interaction_count"]
    ):
        raise RuntimeError(f"an answer counts the event but does not use it: {answer}")
    return Probe(1000 * (accepted - began), 1000 * (now - began), stale)


async def probes(
    port: int, count: int, per_second: float, waiting: bool, users: list[int], first: int
) -> list[Probe]:
    """`count` probes of as many users, at random times, some `per_second` a second."""
    pick = random.Random(first)

    async def one_after_the_other(number: int) -> list[Probe]:
        connection, measured = await Connection().open(port), []
        for at in range(number, count, CONNECTIONS):
            await asyncio.sleep(pick.expovariate(per_second / CONNECTIONS))
            measured.append(await probe(connection, users[at], first + at, waiting))
        connection.close()
        return measured

    return [
        measured
        for of_connection in await asyncio.gather(*map(one_after_the_other, range(CONNECTIONS)))
        for measured in of_connection
    ]
