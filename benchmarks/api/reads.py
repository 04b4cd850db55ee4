"""Reads: `python -m benchmarks.reads`. One API process, a real Redis, 16 connections, personal ALS
answers over 10,000 items.

Server and client are processes of their own. Every read is the whole path: HTTP, key check, one
round trip to Redis for counters, history and profile, fold-in, scores over the catalogue, filters,
top 10, reasons in words, catalogue metadata, JSON. The empty route (`/health/live`) runs in turn
with it on the same server, through the same doors, and its rate is the reference.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from pydantic import SecretStr
from redis import Redis

from benchmarks.api.load import Report
from benchmarks.measurements import record
from core.codec import encode_json
from core.settings import Settings
from core.types import Item
from models import bundle, files
from models.als import ALSModel, UserSide
from models.content import ContentModel
from models.id_map import IdMap
from models.popular import PopularModel
from models.registry import Registry
from store.state import keys
from store.state.entities.users import history_line
from testing.process import Child, module, settings_environment
from testing.redis import RedisServer
from testing.tansu import TansuBroker

ITEMS = 10_000
FACTORS = 64
EVENTS = 50
COMMAND = "python -m benchmarks.reads"
_WORDS = [
    "fintech",
    "health",
    "climate",
    "robotics",
    "gaming",
    "security",
    "education",
    "logistics",
    "biotech",
    "retail",
    "energy",
    "media",
]


def catalogue(rng: np.random.Generator) -> list[Item]:
    """Startups with what a marketplace knows of them: some 400 bytes of JSON each."""
    items = []
    for number in range(ITEMS):
        words = rng.choice(_WORDS, 3, replace=False).tolist()
        items.append(
            Item(
                item_id=f"startup-{number}",
                item_type="startup",
                title=f"{words[0].title()} {number}",
                categories=words[:2],
                tags=words,
                text=(
                    f"A {words[0]} company that brings {words[1]} to {words[2]}, founded by "
                    f"people who did it before."
                ),
                attributes={"stage": ["seed", "a", "b"][number % 3], "team_size": number % 90},
                created_at=1.7e9 + number,
            )
        )
    return items


def publish(settings: Settings, items: list[Item], rng: np.random.Generator, users: int = 0) -> str:
    """A bundle of the size and shape of a trained one, with factors of `users` users; its numbers
    are random.
    """
    user_factors = (rng.standard_normal((users, FACTORS)) * 0.1).astype(np.float32)
    trained = (
        UserSide.of(IdMap([str(user) for user in range(users)]), user_factors) if users else None
    )
    factors = (rng.standard_normal((ITEMS, FACTORS)) * 0.1).astype(np.float32)
    popular = sorted(
        (
            (item.item_id, float(score))
            for item, score in zip(items[:1000], rng.exponential(50, 1000), strict=True)
        ),
        key=lambda entry: -entry[1],
    )

    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, items)
        ALSModel(
            IdMap([item.item_id for item in items]),
            factors,
            trained,
            regularization=0.01,
            alpha=40.0,
        ).save(folder / "als")
        ContentModel.fit(items).save(folder / "content")
        PopularModel({"developer_startup": popular}).save(folder / "popular")

    return Registry(settings.models_path).publish(write)


def fill(
    client: Redis, items: list[Item], users: int, rng: np.random.Generator, events: int = EVENTS
) -> None:
    """The catalogue, and `users` with `events` events each on popular and rare items alike."""
    pipe = client.pipeline(transaction=False)
    for item in items:
        pipe.hset(keys.ITEMS, item.item_id, encode_json(item))
        pipe.xadd(keys.ITEMS_CHANGES, {"item": item.item_id})
    pipe.execute()
    chosen = (rng.power(0.5, (users, events)) * ITEMS).astype(int)
    types = rng.choice(
        ["view", "click", "like", "apply"], (users, events), p=[0.6, 0.2, 0.15, 0.05]
    )
    for user in range(users):
        lines = [
            history_line(1.73e9 + 3600 * at, types[user, at], None, f"startup-{chosen[user, at]}")
            for at in range(events)
        ]
        counts = {
            f"ev:{name}": int(count)
            for name, count in zip(*np.unique(types[user], return_counts=True), strict=True)
        }
        pipe.hset(
            keys.user(str(user)), mapping={"events": events, "first_seen": 1_730_000_000, **counts}
        )
        pipe.rpush(keys.history(str(user)), *lines)
        if user % 500 == 499:
            pipe.execute()
    pipe.execute()


def serving_port(child: Child, seconds: float = 60.0) -> int:
    """The port in the line that a starting API logs, once it answers and is ready.

    Raises RuntimeError, ProcessFailed.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        child.check()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", child.log.read_text("utf-8"))
        if found:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{found[1]}/health/ready", timeout=seconds
            ) as answer:
                if answer.status == 200:
                    return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(child.describe("did not serve"))


def drive(port: int, paths: list[str], connections: int, seconds: float) -> Report:
    """One run of the client, in a process of its own.

    Raises RuntimeError when any answer was not a 200.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.load",
        f"127.0.0.1:{port}",
        "--connections",
        str(connections),
        "--seconds",
        str(seconds),
    ]
    done = subprocess.run(
        command,
        input="\n".join(paths),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    report = msgspec.json.decode(done.stdout, type=Report)
    if report.failures:
        raise RuntimeError(
            f"{report.failures} requests failed, the first with: {report.first_failure}"
        )
    return report


def check(port: int, path: str) -> dict[str, object]:
    """One answer, held against what is being measured: personal ALS with reasons and metadata.

    Raises RuntimeError.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        body: dict[str, object] = json.load(answer)
    lines = body["recommendations"]
    whole = (
        isinstance(lines, list)
        and len(lines) == 10
        and all(line["method"] == "als" and line["reasons"] and line["metadata"] for line in lines)
    )
    if body["method_used"] != "als" or not whole:
        raise RuntimeError(f"not a whole ALS answer: {body}")
    return body


class Served(NamedTuple):
    """A warm API process: `pid`, the `port` it answers at, a path for each user, and its `registry`
    with the `versions` that are there.
    """

    pid: int
    port: int
    paths: list[str]
    registry: Registry
    versions: list[str]


@contextmanager
def serving(
    users: int,
    connections: int,
    bundles: int = 1,
    trained: int = 0,
    events: int = EVENTS,
    **changed: Any,
) -> Iterator[Served]:
    """One API process over `users` users of `events` events and as many equal bundles, with a Redis
    and a broker of its own.

    `trained`: users with factors in the bundle; `changed`: settings.
    """
    rng = np.random.default_rng(42)
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-reads-") as folder,
        RedisServer(Path(folder) / "redis") as server,
        TansuBroker(Path(folder) / "broker") as broker,
    ):
        settings = Settings(
            redis_url=SecretStr(server.url),
            models_path=Path(folder) / "models",
            api_port=0,
            kafka_bootstrap_servers=broker.address,
            warm_user_threshold=events + 1,
            **changed,
        )
        items = catalogue(rng)
        versions = [publish(settings, items, rng, trained) for _ in range(bundles)]
        with Redis.from_url(server.url) as client:
            fill(client, items, users, rng, events)
        child = module(
            "api", directory=Path(folder) / "api", environment=settings_environment(settings)
        ).start()
        try:
            port = serving_port(child)
            paths = [
                f"/api/recommendations/startups/for-developer/{user}?limit=10"
                for user in rng.permutation(users)
            ]
            check(port, paths[0])
            drive(port, paths, connections, 1.0)
            yield Served(child.pid, port, paths, Registry(settings.models_path), versions)
        finally:
            child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each route, in turn; the median counts"
    )
    arguments = parser.parse_args()
    empties, reads = [], []
    with serving(arguments.users, arguments.connections) as served:
        for _ in range(arguments.rounds):
            empties.append(
                drive(served.port, ["/health/live"], arguments.connections, arguments.seconds)
            )
            reads.append(drive(served.port, served.paths, arguments.connections, arguments.seconds))
    empty = statistics.median(run.per_second for run in empties)
    rate = statistics.median(run.per_second for run in reads)
    p99 = statistics.median(run.p99_ms for run in reads)
    record(
        "reads",
        rate,
        "reads/s",
        f"empty route of the same server, {arguments.connections} connections",
        empty,
        COMMAND,
    )
    record(
        "reads-p99",
        p99,
        "ms",
        "p99 of the empty route",
        statistics.median(run.p99_ms for run in empties),
        COMMAND,
    )
    for name, runs in (("empty", empties), ("reads", reads)):
        for run in runs:
            print(
                f"{name:>6}: {run.per_second:8.0f}/s   p50 {run.p50_ms:6.2f} ms   p99 "
                f"{run.p99_ms:6.2f} ms"
            )
    print(f"reads {rate:.0f}/s = {rate / empty:.2f} of the empty route, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
