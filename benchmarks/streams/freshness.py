"""Freshness: `python -m benchmarks.freshness`. From before an event's POST to an answer that has
it, with everything on this machine.

Redis (AOF everysec), broker, one ingest, one live worker and one API process serve a bundle of
10,000 items. Beside the probes a producer publishes 5,000 events a second of 20,000 other users. A
probe is a user of 50 events: it reads its ten recommendations, posts a `like` of the first one, and
reads again every millisecond until the answer counts the event; that answer must not show the item
any more. Probes come spaced in time, over four connections. Other probes read once, with `after`
and the token of the POST. Then the live worker is killed, and all is measured again. The first 250
probes (`WARM_UP`) are not counted: a Java broker compiles its hot code in its first half minute.
With KAFKA_HOME set it runs on Apache Kafka, else on the embedded broker, and the reference says on
which.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import uvloop
from pydantic import SecretStr
from redis import Redis

from benchmarks.api import reads
from benchmarks.measurements import record
from core.settings import Settings, load
from core.types import Interaction
from store.log import client as log
from store.log.producer import Producer
from store.state import keys
from streams.pace import Pace
from testing.brokers import broker, broker_kinds
from testing.process import Child, module, settings_environment
from testing.redis import RedisServer

COMMAND = "KAFKA_HOME=... python -m benchmarks.freshness"
KEY = "freshness"
RATE = 5_000
CONNECTIONS = 4
AGAIN_S = 0.001
"""Seconds between two reads of a probe: what it adds to the time is half of that."""
GIVE_UP_S = 30.0
WARM_UP = 250
"""Probes that are not counted, before the others: some ten seconds in which every process does what
is measured then.
"""


class Probe(NamedTuple):
    """Milliseconds from before the POST: until its token was here, and until an answer had the
    event. `stale`: it never had.
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

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer's JSON. Raises RuntimeError unless it is a success."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: "
            f"{KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        answered = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answered.split(b"content-length:")[1].split(b"\r\n", 1)[0])
        text = await self._reader.readexactly(length)
        if not answered.startswith(b"http/1.1 20"):
            raise RuntimeError(f"{method} {path}: {text[:300]!r}")
        found: dict[str, Any] = json.loads(text)
        return found

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def probe(connection: Connection, user: int, number: int, waiting: bool) -> Probe:
    """Post an event of `user` and read until it is in the answer.

    Raises RuntimeError when an answer counts it and shows its item.
    """
    path = f"/api/recommendations/startups/for-developer/{user}?limit=10"
    before = await connection.ask("GET", path)
    item_id = before["recommendations"][0]["item_id"]
    event = {
        "event_id": f"probe-{number}",
        "user_id": str(user),
        "item_id": item_id,
        "event_type": "like",
        "timestamp": time.time(),
    }
    began = time.perf_counter()
    token = (await connection.ask("POST", "/api/events", event))["results"][0]["token"]
    accepted = time.perf_counter()
    while True:
        answer = await connection.ask("GET", f"{path}&after={token}" if waiting else path)
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
        raise RuntimeError(f"an answer counts the event and rests on less: {answer}")
    return Probe(1000 * (accepted - began), 1000 * (now - began), stale)


async def probes(
    port: int, count: int, per_second: float, waiting: bool, users: list[int], first: int
) -> list[Probe]:
    """`count` probes of as many users, at random times, some `per_second` a second."""
    pick = random.Random(first)

    async def one_after_the_other(number: int) -> list[Probe]:
        connection, found = await Connection().open(port), []
        for at in range(number, count, CONNECTIONS):
            await asyncio.sleep(pick.expovariate(per_second / CONNECTIONS))
            found.append(await probe(connection, users[at], first + at, waiting))
        connection.close()
        return found

    return [
        each
        for found in await asyncio.gather(*map(one_after_the_other, range(CONNECTIONS)))
        for each in found
    ]


def background(settings: Settings, rate: float) -> None:
    """Publish events until killed. Run in a process of its own."""
    pick, pace, number = random.Random(1), Pace(rate, threading.Event()), 0
    with Producer(settings) as producer:
        while pace.wait():
            number += 1
            producer.interaction(
                Interaction(
                    event_id=f"b{number}",
                    user_id=f"user-{pick.randrange(20_000)}",
                    item_id=f"startup-{int(reads.ITEMS * pick.random() ** 2)}",
                    event_type="view",
                    timestamp=time.time(),
                    use_case="developer_startup",
                )
            )


def applied(redis: Redis, settings: Settings) -> int:
    """Events that are in Redis."""
    return sum(
        int(redis.hget(keys.position(settings.interactions_topic, number), "position") or 0)  # type: ignore[arg-type]
        for number in range(settings.topic_partitions)
    )


def cpu(processes: dict[str, int]) -> dict[str, float]:
    """Name -> seconds of a core that the process has used."""
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in processes.items()}


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def tell(name: str, found: list[Probe], references: tuple[tuple[str, float, float], ...]) -> None:
    """Print one line, and record a row for each of `references`: what follows the name, the share,
    the target in milliseconds.
    """
    visible = [each.visible for each in found if not each.stale]
    line = "   ".join(
        f"p{100 * share:g} {quantile(visible, share):6.1f} ms" for share in (0.1, 0.5, 0.9, 0.99)
    )
    accepted = statistics.median(each.accepted for each in found)
    print(
        (
            f"{name:32} {line}   stale {sum(each.stale for each in found)}   POST p50 "
            f"{accepted:.1f} ms"
        ),
        flush=True,
    )
    for suffix, share, target in references:
        reference = (
            f"{target:g} ms, the target; {broker_kinds()[0]}, {len(found)} probes, {RATE} "
            f"background events/s"
        )
        record(name + suffix, quantile(visible, share), "ms", reference, target, COMMAND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, default=25.0)
    parser.add_argument("--rate", type=float, default=RATE, help="background events a second")
    parser.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.background:
        background(load(), arguments.rate)
        return
    rng = np.random.default_rng(42)
    users = WARM_UP + 4 * arguments.probes
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-freshness-") as name,
        broker(Path(name) / "broker", broker_kinds()[0]) as log_server,
        RedisServer(Path(name) / "redis") as server,
        Redis.from_url(server.url) as redis,
    ):
        settings = Settings(
            kafka_bootstrap_servers=log_server.address,
            redis_url=SecretStr(server.url),
            models_path=Path(name) / "models",
            api_port=0,
            api_keys=frozenset({SecretStr(KEY)}),
            warm_user_threshold=10_000,
            session_timeout_s=6,
        )
        log.ensure_topics(settings)
        items = reads.catalogue(rng)
        reads.publish(settings, items, rng)
        reads.fill(redis, items, users, rng)
        environment = settings_environment(settings)
        children: list[Child] = []

        def start(room: str, *words: str, label: str) -> Child:
            children.append(
                module(
                    room, *words, directory=Path(name) / label, environment=environment, label=label
                ).start()
            )
            return children[-1]

        try:
            start("streams", "ingest", label="ingest")
            live = start("streams", "live", label="live")
            port = reads.serving_port(start("api", label="api"))
            noise = [
                sys.executable,
                "-m",
                "benchmarks.freshness",
                "--background",
                "--rate",
                str(arguments.rate),
            ]
            children.append(
                Child(
                    "background", noise, Path(name) / "noise", {**os.environ, **environment}
                ).start()
            )
            deadline = time.monotonic() + 60
            while applied(redis, settings) < 5 * arguments.rate or not any(
                True for _ in redis.scan_iter("user:user-*:als", count=10_000)
            ):
                for child in children:
                    child.check()
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        "; ".join(child.describe("did not come up") for child in children)
                    )
                time.sleep(0.1)
            uvloop.run(probes(port, WARM_UP, arguments.per_second, False, list(range(WARM_UP)), 0))
            done = WARM_UP

            def processes() -> dict[str, int]:
                return {
                    child.name: child.pid for child in (log_server.child, server.child, *children)
                }

            def measure(
                label: str, waiting: bool, references: tuple[tuple[str, float, float], ...]
            ) -> None:
                nonlocal done
                began, counted, busy = time.monotonic(), applied(redis, settings), cpu(processes())
                mine = list(range(done, done + arguments.probes))
                found = uvloop.run(
                    probes(port, arguments.probes, arguments.per_second, waiting, mine, done)
                )
                done += arguments.probes
                took, spent = time.monotonic() - began, cpu(processes())
                shares = ", ".join(
                    f"{each} {100 * (spent[each] - busy[each]) / took:.0f}%" for each in spent
                )
                print(
                    f"{'':32} {(applied(redis, settings) - counted) / took:.0f} events/s "
                    f"applied meanwhile; of a core: {shares}"
                )
                tell(label, found, references)

            targets = (("", 0.5, 20.0), ("-p99", 0.99, 60.0))
            measure("freshness", False, targets)
            measure("freshness-after", True, targets)
            live.kill()
            children.remove(live)
            measure("freshness-model-plane-down", False, targets)
            measure("freshness-after-model-plane-down", True, ())
        finally:
            for child in reversed(children):
                child.stop()


if __name__ == "__main__":
    main()
