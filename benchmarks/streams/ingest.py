"""Measures ingest: `python -m benchmarks.ingest`.

One `streams ingest` process, with broker and Redis (AOF everysec) on the same machine. Random
events: 20,000 users drawn evenly (the hardest case: a batch holds few events of one user), 10,000
items, the popular ones drawn more often, four partitions. The reference is the same consumer in a
process of its own that polls and decodes the same topic and does nothing else. Both run in turn,
and the medians of the ratios of rates and of processor time count. Beside ingest a reader reads the
whole state of a user every 10 ms, and SLOWLOG has the longest command. With KAFKA_HOME set it runs
on Apache Kafka, else on the embedded broker; the reference names the broker.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka import Consumer, TopicPartition
from pydantic import SecretStr
from redis import Redis

from benchmarks.measurements import record
from core import codec
from core.settings import Settings, load
from core.types import Interaction
from store.log import client as log
from store.log.producer import Producer
from store.state.entities import users
from testing.brokers import broker, broker_kinds
from testing.process import module, settings_environment
from testing.redis import RedisServer

USERS, ITEMS = 20_000, 10_000
COMMAND = "KAFKA_HOME=... python -m benchmarks.ingest"


def produce(settings: Settings, count: int) -> None:
    """`count` random events of some 150 bytes."""
    pick = random.Random(1)
    types = ["view"] * 7 + ["click"] * 2 + ["like"]
    cases = ["developer_startup"] * 7 + ["investor_startup"] * 3
    # events of the last minutes: older ones count in no window, which is less work
    began = time.time()
    with Producer(settings) as producer:
        for number in range(count):
            user, item = pick.randrange(USERS), int(ITEMS * pick.random() ** 2)
            producer.interaction(
                Interaction(
                    event_id=f"{pick.getrandbits(64):016x}",
                    user_id=f"user-{user}",
                    item_id=f"startup-{item}",
                    event_type=pick.choice(types),
                    timestamp=began + (number - count) / 1000,
                    use_case=pick.choice(cases),
                )
            )


class Cost(NamedTuple):
    """Events a second, and CPU microseconds an event."""

    rate: float
    cpu: float


class Ingest(NamedTuple):
    """What one run of ingest measures; `longest` (command) and `p99` (of the reader) in ms,
    `redis`: CPU microseconds an event of Redis.
    """

    cost: Cost
    redis: float
    longest: float
    p99: float


def reference(settings: Settings, count: int) -> Cost:
    """A consumer that polls and decodes. Run in a process of its own."""
    consumer = Consumer(log.consumer_config(settings, "reference"))
    consumer.assign(
        [
            TopicPartition(settings.interactions_topic, partition, 0)
            for partition in range(settings.topic_partitions)
        ]
    )
    decoded, began, began_cpu, first = 0, 0.0, 0.0, 0
    while decoded < count:
        for message in consumer.consume(settings.poll_events, 0.2):
            value, stamp = message.value(), message.timestamp()[1]
            codec.decode_interaction(value, stamp / 1000, settings.use_cases)
            decoded += 1
        if decoded and not began:
            began, began_cpu, first = time.perf_counter(), time.process_time(), decoded
    done, took, cpu = decoded - first, time.perf_counter() - began, time.process_time() - began_cpu
    consumer.close()
    return Cost(done / took, cpu / done * 1e6)


class Reader(threading.Thread):
    """Reads one user's state every 10 ms and records the milliseconds of each read."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._client = Redis.from_url(url)
        self._ended = threading.Event()
        self.milliseconds: list[float] = []

    def run(self) -> None:
        pick = random.Random(2)
        while not self._ended.wait(0.01):
            began = time.perf_counter()
            users.read(self._client, f"user-{pick.randrange(USERS)}", 500)
            self.milliseconds.append(1000 * (time.perf_counter() - began))

    def end(self) -> None:
        self._ended.set()
        self.join()


def ingest(settings: Settings, redis: Redis, url: str, count: int, folder: Path) -> Ingest:
    """Empty Redis and run `streams ingest` over the first `count` events."""
    redis.flushall()
    redis.config_set("slowlog-log-slower-than", 1000)
    redis.config_set("slowlog-max-len", 10_000)
    redis.slowlog_reset()
    positions = [
        f"ingest:{settings.interactions_topic}:{partition}"
        for partition in range(settings.topic_partitions)
    ]

    def applied() -> int:
        pipe = redis.pipeline(transaction=False)
        for key in positions:
            pipe.hget(key, "position")
        return sum(int(answer or 0) for answer in pipe.execute())

    reader = Reader(url)
    environment = settings_environment(
        settings.model_copy(update={"ingest_group": f"bench-{time.time_ns()}"})
    )
    child = module("streams", "ingest", directory=folder, environment=environment).start()
    try:
        while (first := applied()) == 0:
            child.check()
            time.sleep(0.01)
        server = psutil.Process(int(redis.info("server")["process_id"]))
        process = psutil.Process(child.pid)
        reader.start()
        began, cpu, redis_cpu = (
            time.perf_counter(),
            sum(process.cpu_times()[:2]),
            sum(server.cpu_times()[:2]),
        )
        while applied() < count:
            child.check()
            time.sleep(0.02)
        took = time.perf_counter() - began
        cpu, redis_cpu = sum(process.cpu_times()[:2]) - cpu, sum(server.cpu_times()[:2]) - redis_cpu
    finally:
        reader.end()
        child.stop()
    longest = max((entry["duration"] for entry in redis.slowlog_get(10_000)), default=0) / 1000
    done = count - first
    return Ingest(
        Cost(done / took, cpu / done * 1e6),
        redis_cpu / done * 1e6,
        longest,
        statistics.quantiles(reader.milliseconds, n=100)[98],
    )


def median(ratios: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Value and reference of the median of (ratio, value, reference)."""
    _, value, alone = sorted(ratios)[len(ratios) // 2]
    return value, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reference:
        print(*reference(load(), arguments.events))
        return
    kind = broker_kinds()[0]
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-ingest-") as name,
        broker(Path(name) / "broker", kind) as log_server,
        RedisServer(Path(name) / "redis") as server,
        Redis.from_url(server.url) as redis,
    ):
        settings = Settings(
            kafka_bootstrap_servers=log_server.address,
            redis_url=SecretStr(server.url),
            log_level="warning",
        )
        log.ensure_topics(settings)
        produce(settings, arguments.events)
        rounds: list[tuple[Cost, Ingest]] = []
        for _ in range(arguments.rounds):
            command = [
                sys.executable,
                "-m",
                "benchmarks.ingest",
                "--reference",
                "--events",
                str(arguments.events),
            ]
            environment = {**os.environ, **settings_environment(settings)}
            output = subprocess.run(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=300,
            ).stdout
            alone = Cost(*map(float, output.split()))
            run = ingest(settings, redis, server.url, arguments.events, Path(name) / "ingest")
            rounds.append((alone, run))
            print(
                f"ingest {run.cost.rate:7.0f}/s, {run.cost.cpu:.2f} us of CPU an event "
                f"(Redis {run.redis:.2f})   poll and decode {alone.rate:7.0f}/s, {alone.cpu:.2f} us"
                f"   ratio of rates {run.cost.rate / alone.rate:.2f}, of CPU "
                f"{run.cost.cpu / alone.cpu:.2f}   longest command {run.longest:.1f} ms   "
                f"reader p99 {run.p99:.1f} ms",
                flush=True,
            )
        redis_name = "{redis_version}, {mem_allocator}".format_map(
            redis.info("server") | redis.info("memory")
        )
    poll = f"the same consumer only polls and decodes, {kind}"
    rates = [(run.cost.rate / alone.rate, run.cost.rate, alone.rate) for alone, run in rounds]
    costs = [(run.cost.cpu / alone.cpu, run.cost.cpu, alone.cpu) for alone, run in rounds]
    redis_cpu, longest, p99 = (
        statistics.median(column)
        for column in zip(*((run.redis, run.longest, run.p99) for _, run in rounds), strict=True)
    )
    rate, alone_rate = median(rates)
    cpu, alone_cpu = median(costs)
    record("ingest", rate, "events/s", poll, alone_rate, COMMAND)
    record("ingest-cpu", cpu, "us of CPU an event", poll, alone_cpu, COMMAND)
    redis_reference = f"8 us, the target; redis {redis_name}"
    record("ingest-redis-cpu", redis_cpu, "us of CPU an event", redis_reference, 8.0, COMMAND)
    longest_reference = "10 ms: no command may block Redis longer"
    record("ingest-longest-command", longest, "ms", longest_reference, 10.0, COMMAND)
    record("ingest-reader-p99", p99, "ms", "10 ms", 10.0, COMMAND)


if __name__ == "__main__":
    main()
