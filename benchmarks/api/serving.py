"""An API process over a random bundle and random users, for benchmarks of the API to read from.

The process has a Redis and a broker of its own. `drive` runs the client (benchmarks/api/load.py)
in a process of its own.
"""

from __future__ import annotations

import json
import re
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
from core.codec import encode_json
from core.settings import Settings
from core.types import Item
from models import bundle, files
from models.als import ALSModel
from models.als.user_side import UserSide
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


def catalogue(rng: np.random.Generator, count: int = ITEMS) -> list[Item]:
    """Startups as a marketplace describes them: some 400 bytes of JSON each."""
    items = []
    for number in range(count):
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


def publish(
    settings: Settings,
    items: list[Item],
    rng: np.random.Generator,
    users: int = 0,
    width: int = FACTORS,
) -> str:
    """A bundle of the size and shape of a trained one, with factors of `users` users; its numbers
    are random. `width`: numbers in a factor.
    """
    user_factors = (rng.standard_normal((users, width)) * 0.1).astype(np.float32)
    ids = IdMap([str(user) for user in range(users)])
    user_side = UserSide.of(ids, user_factors) if users else None
    factors = (rng.standard_normal((len(items), width)) * 0.1).astype(np.float32)
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
            user_side,
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
        pipe.hset(keys.of(client).items, item.item_id, encode_json(item))
        pipe.xadd(keys.of(client).items_changes, {"item": item.item_id})
    pipe.execute()
    items_of = (rng.power(0.5, (users, events)) * ITEMS).astype(int)
    types = rng.choice(
        ["view", "click", "like", "apply"], (users, events), p=[0.6, 0.2, 0.15, 0.05]
    )
    for user in range(users):
        lines = [
            history_line(1.73e9 + 3600 * at, types[user, at], None, f"startup-{items_of[user, at]}")
            for at in range(events)
        ]
        counts = {
            f"ev:{name}": int(count)
            for name, count in zip(*np.unique(types[user], return_counts=True), strict=True)
        }
        counters = [("events", events), ("first_seen", 1_730_000_000), *counts.items()]
        pipe.hset(
            keys.of(client).user(str(user)), items=[part for pair in counters for part in pair]
        )
        pipe.rpush(keys.of(client).history(str(user)), *lines)
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
        address = re.search(r"http://127\.0\.0\.1:(\d+)", child.log.read_text("utf-8"))
        if address:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{address[1]}/health/ready", timeout=seconds
            ) as answer:
                if answer.status == 200:
                    return int(address[1])
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
    """One answer.

    Raises RuntimeError unless it is a personal ALS answer of ten items with reasons and metadata.
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
    with the `versions` that are there; `settings` of this process and others beside it.
    """

    pid: int
    port: int
    paths: list[str]
    registry: Registry
    versions: list[str]
    settings: Settings


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
            registry = Registry(settings.models_path)
            yield Served(child.pid, port, paths, registry, versions, settings)
        finally:
            child.stop()
