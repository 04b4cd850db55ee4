"""Measures fold-in: `python -m benchmarks.fold_in`.

The step: 500 users at 64 factors, from the lines of their histories to vectors, against the call of
the compiled solver alone on a matrix that is ready. The worker: `python -m streams live` on a
broker and a Redis of its own, with hints of changed users in its topic; how many users a second get
a new vector in Redis, and what one costs the process in CPU, against the length of the history and
the size of the catalogue. The rows count CPU time, so that other work on the machine changes
little: `fold-in-worker` is users a second of one core. With KAFKA_HOME set it runs on Apache Kafka,
else on the embedded broker.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from implicit.cpu._als import _least_squares
from pydantic import SecretStr
from redis import Redis

from benchmarks.measurements import record
from core.settings import Settings
from engines.fold import Lines
from models import bundle, files
from models.als import ALSModel
from models.id_map import IdMap
from models.registry import Registry
from store.log import client as log
from store.log import model_updates
from store.state import keys
from store.state.entities.users import history_event, history_line
from testing.apache import KafkaBroker
from testing.brokers import broker, broker_kinds
from testing.ports import free_port
from testing.process import module, settings_environment
from testing.redis import RedisServer
from testing.tansu import TansuBroker

FACTORS, BATCH, USERS = 64, 500, 4000
COMMAND = "python -m benchmarks.fold_in"
KINDS = ("view", "view", "view", "click", "like")


def model(items: int) -> ALSModel:
    rng = np.random.default_rng(1)
    factors = (rng.normal(size=(items, FACTORS)) / FACTORS**0.5).astype(np.float32)
    return ALSModel(
        IdMap([f"startup-{row}" for row in range(items)]), factors, regularization=0.01, alpha=40
    )


def histories(users: int, events: int, items: int) -> list[list[bytes]]:
    """Lines as Redis holds them; popular items come more often."""
    pick = random.Random(2)
    return [
        [
            history_line(
                1.76e9 + pick.randrange(10**7),
                pick.choice(KINDS),
                None,
                f"startup-{int(items * pick.random() ** 2)}",
            ).encode()
            for _ in range(events)
        ]
        for _ in range(users)
    ]


def step(events: int, rounds: int = 31) -> tuple[float, float]:
    """Microseconds of CPU a user: the whole step, and the solver alone, each the median of
    alternating rounds.
    """
    als = model(10_000)
    lines = Lines(als, Settings().use_cases, history_event)
    batch = histories(BATCH, events, 10_000)
    ready = lines.matrix(batch)
    whole, alone = [], []
    for _ in range(rounds):
        began = time.thread_time()
        lines.vectors(batch)
        between = time.thread_time()
        vectors = np.zeros((BATCH, FACTORS), dtype=np.float32)
        confidences = np.float32(als.alpha) * ready.data
        _least_squares(
            als._yty,
            ready.indptr,
            ready.indices,
            confidences,
            vectors,
            als.item_factors,
            als.regularization,
            num_threads=1,
        )
        ended = time.thread_time()
        whole.append((between - began) / BATCH * 1e6)
        alone.append((ended - between) / BATCH * 1e6)
    return statistics.median(whole), statistics.median(alone)


def publish(settings: Settings, items: int) -> None:
    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, [])
        (folder / "als").mkdir()
        model(items).save(folder / "als")

    Registry(settings.models_path).publish(write)


def folded(port: int) -> int:
    """Users folded in so far, by the worker's own metrics; 0 before it serves them."""
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        return 0
    metric = re.search(r"^eddyline_live_users_folded_total (\S+)$", text, re.MULTILINE)
    return int(float(metric.group(1))) if metric else 0


class Workload(NamedTuple):
    """What a live worker folds in: events of each user, items of the bundle."""

    events: int
    items: int


def worker(
    log_server: KafkaBroker | TansuBroker,
    server: RedisServer,
    folder: Path,
    workload: Workload,
    seconds: float,
) -> tuple[float, float]:
    """Users a second, and CPU microseconds of the worker a user."""
    events, items = workload
    name = f"{events}-{items}"
    settings = Settings(
        kafka_bootstrap_servers=log_server.address,
        redis_url=SecretStr(server.url),
        models_path=folder / name,
        model_updates_topic=f"model-updates-{name}",
        live_group=f"live-{name}",
        metrics_port=free_port(),
        session_timeout_s=6,
        live_read_s=0.0,  # every user, without a rest
        live_cpu_share=1.0,
        log_level="warning",
    )
    log.ensure_topics(settings)
    publish(settings, items)
    with Redis.from_url(server.url) as redis:
        redis.flushall()
        names = keys.of(redis)
        for number, lines in enumerate(histories(USERS, events, items)):
            redis.rpush(names.history(f"user-{number}"), *lines)
            redis.hset(names.user(f"user-{number}"), "events", events)
    producer = model_updates.connect(settings)
    for start in range(0, int(12_000 * seconds), BATCH):
        value = model_updates.encode(
            [(f"user-{number % USERS}", "startup-0") for number in range(start, start + BATCH)]
        )
        producer.produce(
            settings.model_updates_topic,
            value,
            partition=start // BATCH % settings.topic_partitions,
        )
    producer.flush()
    child = module(
        "streams",
        "live",
        directory=folder / f"{name}-log",
        environment=settings_environment(settings),
    ).start()
    try:
        # warm: every line has been seen once
        while (first := folded(settings.metrics_port)) < USERS:
            child.check()
            time.sleep(0.02)
        process = psutil.Process(child.pid)
        began, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
        while (took := time.perf_counter() - began) < seconds:
            child.check()
            time.sleep(0.02)
        done, cpu = folded(settings.metrics_port) - first, sum(process.cpu_times()[:2]) - cpu
    finally:
        child.stop()
    return done / took, cpu / done * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run of the worker")
    parser.add_argument("--no-worker", action="store_true")
    arguments = parser.parse_args()
    for events in (10, 50, 100, 500):
        whole, alone = step(events)
        print(
            (
                f"step      {events:4} events   {whole:6.1f} us a user   solver {alone:6.1f}   "
                f"ratio {whole / alone:.2f}"
            ),
            flush=True,
        )
        if events == 100:
            record(
                "fold-in",
                whole,
                "us/user, 100 events",
                "the compiled solver's own call on a ready matrix",
                alone,
                COMMAND,
            )
    if arguments.no_worker:
        return
    kind = broker_kinds()[0]
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-fold-in-") as name,
        broker(Path(name) / "broker", kind) as log_server,
        RedisServer(Path(name) / "redis") as server,
    ):
        rates: dict[Workload, tuple[float, float]] = {}
        for events, items in (
            (100, 10_000),
            (10, 10_000),
            (500, 10_000),
            (100, 1_000),
            (100, 100_000),
        ):
            workload = Workload(events, items)
            rate, cpu = worker(log_server, server, Path(name), workload, arguments.seconds)
            rates[workload] = rate, cpu
            print(
                (
                    f"worker    {events:4} events {items:7} items   {rate:6.0f} users/s   "
                    f"{cpu:6.1f} us of CPU a user   on {kind}"
                ),
                flush=True,
            )
    record(
        "fold-in-worker",
        1e6 / rates[Workload(100, 10_000)][1],
        "users/s of one core, 100 events",
        "5,000 changed users a second",
        5000.0,
        COMMAND,
    )
    for what, more, less in (
        ("catalogue", Workload(100, 100_000), Workload(100, 1_000)),
        ("history", Workload(500, 10_000), Workload(10, 10_000)),
    ):
        meaning = f"the same at {less.events} events and {less.items} items"
        unit = f"us of CPU/user, {more.events} events, {more.items} items"
        record(f"fold-in-worker-{what}", rates[more][1], unit, meaning, rates[less][1], COMMAND)


if __name__ == "__main__":
    main()
