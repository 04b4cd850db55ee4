"""Measures the time from an event to an answer that has it: `python -m benchmarks.freshness`.

Everything runs on this machine: Redis (AOF everysec), broker, one ingest, one live worker and one
API process serve a bundle of 10,000 items. Beside the probes a producer publishes 5,000 events a
second of 20,000 other users. A probe is a user of 50 events: it reads its ten recommendations,
posts a `like` of the first one, and reads again every millisecond until the answer counts the
event; that answer must not show the item any more. Probes start at random times, over four
connections. Other probes read once, with `after` and the token of the POST. Then 2,000 of the users
with events are read 200 times a second (benchmarks/streams/live_plane.py), once beside this live
worker, once beside one that folds in every user with an event and never rests. Then the live worker
is killed, and the probes are measured again. The first 250 probes (`WARM_UP`) are not counted: a
Java broker compiles its hot code in its first half minute. With KAFKA_HOME set it runs on Apache
Kafka, else on the embedded broker; the reference names the broker.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import uvloop
from pydantic import SecretStr
from redis import Redis

from benchmarks.api import serving
from benchmarks.measurements import record
from benchmarks.neighbour import neighbour
from benchmarks.streams import live_plane
from benchmarks.streams.freshness_probes import KEY, Probe, probes
from benchmarks.streams.live_plane import Plane
from core.settings import Settings, load
from core.types import Interaction
from store.log import client as log
from store.log.producer import Producer
from store.state import keys
from streams.pace import Pace
from testing.brokers import broker, broker_kinds
from testing.process import Child, module, settings_environment
from testing.redis import RedisServer

COMMAND = "KAFKA_HOME=... python -m benchmarks.freshness --neighbour"
RATE = 5_000
WARM_UP = 250
"""Probes before the others that are not counted: some ten seconds of the same work."""


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
                    item_id=f"startup-{int(serving.ITEMS * pick.random() ** 2)}",
                    event_type="view",
                    timestamp=time.time(),
                    use_case="developer_startup",
                )
            )


def applied(redis: Redis, settings: Settings) -> int:
    """Events that are in Redis."""
    names, topic = keys.of(redis), settings.interactions_topic
    return sum(
        int(redis.hget(names.position(topic, number), "position") or 0)
        for number in range(settings.topic_partitions)
    )


def cpu(processes: dict[str, int]) -> dict[str, float]:
    """Name -> seconds of a core that the process has used."""
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in processes.items()}


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def report(
    name: str, measured: list[Probe], references: tuple[tuple[str, float, float], ...]
) -> None:
    """Print one line, and record a row for each of `references`: what follows the name, the share,
    the target in milliseconds.
    """
    visible = [probe.visible for probe in measured if not probe.stale]
    line = "   ".join(
        f"p{100 * share:g} {quantile(visible, share):6.1f} ms" for share in (0.1, 0.5, 0.9, 0.99)
    )
    accepted = statistics.median(probe.accepted for probe in measured)
    print(
        (
            f"{name:32} {line}   stale {sum(probe.stale for probe in measured)}   POST p50 "
            f"{accepted:.1f} ms"
        ),
        flush=True,
    )
    for suffix, share, target in references:
        reference = (
            f"{target:g} ms, the target; {broker_kinds()[0]}, {len(measured)} probes, {RATE} "
            f"background events/s"
        )
        record(name + suffix, quantile(visible, share), "ms", reference, target, COMMAND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, default=25.0)
    parser.add_argument("--rate", type=float, default=RATE, help="background events a second")
    parser.add_argument(
        "--plane-seconds", type=float, default=30.0, help="of each measurement of the live worker"
    )
    parser.add_argument(
        "--neighbour",
        action="store_true",
        help="measure also beside processes that want half of every core",
    )
    parser.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.background:
        background(load(), arguments.rate)
        return
    rng = np.random.default_rng(42)
    users = WARM_UP + 5 * arguments.probes
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
        items = serving.catalogue(rng)
        serving.publish(settings, items, rng)
        serving.fill(redis, items, users, rng)
        environment = settings_environment(settings)
        children: list[Child] = []

        def start(room: str, *words: str, label: str, **changed: str) -> Child:
            own = {**environment, **changed}
            folder = Path(name) / label
            children.append(
                module(room, *words, directory=folder, environment=own, label=label).start()
            )
            return children[-1]

        try:
            start("streams", "ingest", label="ingest")
            live = start("streams", "live", label="live")
            port = serving.serving_port(start("api", label="api"))
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
            while applied(redis, settings) < 5 * arguments.rate or (
                "als_part_loaded" not in live.log.read_text("utf-8")
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
                measured = uvloop.run(
                    probes(port, arguments.probes, arguments.per_second, waiting, mine, done)
                )
                done += arguments.probes
                took, spent = time.monotonic() - began, cpu(processes())
                shares = ", ".join(
                    f"{process} {100 * (spent[process] - busy[process]) / took:.0f}%"
                    for process in spent
                )
                print(
                    f"{'':32} {(applied(redis, settings) - counted) / took:.0f} events/s "
                    f"applied meanwhile; of a core: {shares}"
                )
                report(label, measured, references)

            targets = (("", 0.5, 10.0), ("-p99", 0.99, 30.0))
            measure("freshness", False, targets)
            measure("freshness-after", True, targets)
            if arguments.neighbour:
                with neighbour(Path(name) / "neighbour"):
                    measure("freshness-neighbour", False, (("", 0.5, 30.0), ("-p99", 0.99, 120.0)))
            planes: list[Plane] = []
            for changed in ({}, {"LIVE_READ_S": "0", "LIVE_CPU_SHARE": "1"}):
                live.kill()
                children.remove(live)
                live = start("streams", "live", label=f"live-{len(planes)}", **changed)
                planes.append(live_plane.measure(port, live.pid, arguments.plane_seconds))
                plane = planes[-1]
                print(
                    f"live worker {changed or 'as it is'}: {100 * plane.core:.1f}% of a core, "
                    f"{100 * plane.fresh:.1f}% of {plane.reads:.0f} reads/s had a fresh vector",
                    flush=True,
                )
            reference = "the same, folding in every user with an event without a rest"
            for suffix, values in (
                ("core", [plane.core for plane in planes]),
                ("fresh", [plane.fresh for plane in planes]),
            ):
                record(f"live-plane-{suffix}", values[0], "share", reference, values[1], COMMAND)
            live.kill()
            children.remove(live)
            measure("freshness-live-worker-down", False, targets)
            measure("freshness-after-live-worker-down", True, ())
        finally:
            for child in reversed(children):
                child.stop()


if __name__ == "__main__":
    main()
