"""Measures what one event costs: `KAFKA_HOME=... python -m benchmarks.event_costs`.

One `streams ingest` with broker and Redis (AOF everysec) on this machine, events of 10,000 users
on 10,000 items. It first applies a backlog, with full transactions, and then 1,000 and 5,000
events/s as they come, with small ones: the two give the processor time of an event and that of a
transaction, in ingest and in Redis. Also measured: the bytes of an event in Kafka's log (as the
producer compresses them), to Redis and in its AOF; the broker's processor time at 5,000 events/s,
for one producer and one consumer; the time from the broker to the commit in Redis; and the memory
of an item's popularity and trends. benchmarks/scale_model.py calculates with these rows; the
reference is poll and decode of the backlog, or the bytes of an event's JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from redis import Redis

from benchmarks.measurements import record
from benchmarks.peers.events import interactions, produce
from benchmarks.peers.ours import applied, cpu_seconds
from benchmarks.peers.runs import REFERENCE, Program, Work, run
from core.codec import encode_json
from core.settings import Settings
from store.log import client as log
from store.log.producer import Producer
from streams.pace import Pace
from testing.apache import KafkaBroker, kafka_home
from testing.ports import free_port
from testing.process import Child, module, settings_environment
from testing.redis import RedisServer

COMMAND = "KAFKA_HOME=... python -m benchmarks.event_costs"
TREND_BUCKETS = 25 + 170
"""Of one use case, see docs/redis-keys.md: an item that is touched in each is a member of all."""
RATES = (1_000, 5_000)
SECONDS = 10.0


class Snapshot(NamedTuple):
    """What has been used until `at`; `own`, `redis` and `kafka` in seconds of a core."""

    at: float
    events: int
    own: float
    redis: float
    kafka: float
    transactions: int
    redis_bytes: int


class Costs(NamedTuple):
    """Of one event, between two snapshots; processor times in microseconds."""

    own: float
    redis: float
    kafka: float
    transactions: float
    redis_bytes: float
    rate: float


def costs(begin: Snapshot, end: Snapshot) -> Costs:
    """What one event cost between the two."""
    events = end.events - begin.events
    own, redis, kafka = (
        1e6 * (after - before) / events for before, after in zip(begin[2:5], end[2:5], strict=True)
    )
    return Costs(
        own,
        redis,
        kafka,
        (end.transactions - begin.transactions) / events,
        (end.redis_bytes - begin.redis_bytes) / events,
        events / (end.at - begin.at),
    )


class Stage:
    """An ingest process with its servers."""

    def __init__(self, folder: Path, kafka: KafkaBroker, server: RedisServer, redis: Redis) -> None:
        self._folder, self._kafka, self._server, self.redis = folder, kafka, server, redis
        self._metrics_port = free_port()
        self.settings = Settings(
            kafka_bootstrap_servers=kafka.address,
            redis_url=SecretStr(server.url),
            log_level="warning",
            metrics_port=self._metrics_port,
        )
        self._ingest: Child | None = None

    def start(self) -> None:
        """Start ingest; returns once it has applied events."""
        self._ingest = module(
            "streams",
            "ingest",
            directory=self._folder / "ingest",
            environment=settings_environment(self.settings),
        ).start()
        self.wait(1)

    def stop(self) -> None:
        """Stop ingest, if it was started."""
        if self._ingest is not None:
            self._ingest.stop()

    def wait(self, events: int) -> None:
        """Wait until so many events are applied."""
        assert self._ingest is not None
        while applied(self.redis, self.settings) < events:
            self._ingest.check()
            time.sleep(0.01)

    def snapshot(self) -> Snapshot:
        """What has been used until now."""
        assert self._ingest is not None
        commands = self.redis.info("commandstats")
        return Snapshot(
            time.perf_counter(),
            applied(self.redis, self.settings),
            cpu_seconds(self._ingest.pid),
            cpu_seconds(self._server.child.pid),
            cpu_seconds(self._kafka.child.pid),
            int(commands.get("cmdstat_exec", {}).get("calls", 0)),
            int(self.redis.info("stats")["total_net_input_bytes"]),
        )

    def applied_ms(self) -> dict[float, float]:
        """Bound in milliseconds -> batches that took at most so long from broker to commit."""
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return {
            1000 * float(sample.labels["le"]): sample.value
            for family in families
            for sample in family.samples
            if sample.name == "eddyline_ingest_applied_seconds_bucket"
        }

    def paced(self, rate: int) -> tuple[Costs, dict[float, float]]:
        """Publish `rate` events/s; the costs, and what `applied_ms` counted meanwhile."""
        ended = threading.Event()

        def publish() -> None:
            pace = Pace(rate, ended)
            with Producer(self.settings) as producer:
                for event in interactions(10**9, seed=rate):
                    if not pace.wait():
                        return
                    producer.interaction(msgspec.structs.replace(event, timestamp=time.time()))

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        try:
            time.sleep(3)  # what is new at this rate, such as the producer's connection, is over
            begin, counted = self.snapshot(), self.applied_ms()
            time.sleep(SECONDS)
            end, then = self.snapshot(), self.applied_ms()
        finally:
            ended.set()
            thread.join()
        return costs(begin, end), {bound: then[bound] - counted[bound] for bound in then}


def quantile(buckets: dict[float, float], share: float) -> float:
    """The value below which `share` of what the cumulative buckets count is, by interpolation."""
    total, lower, below = max(buckets.values()), 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= share * total and count > below:
            return lower + (bound - lower) * (share * total - below) / (count - below)
        lower, below = bound, count
    raise ValueError("no bucket holds the share")


def fixed_and_each(small: Costs, full: Costs) -> tuple[tuple[float, float], tuple[float, float]]:
    """((of a transaction, of an event) in ingest, the same in Redis), in microseconds."""
    pairs = []
    for less, more in ((full.own, small.own), (full.redis, small.redis)):
        fixed = (more - less) / (small.transactions - full.transactions)
        pairs.append((fixed, less - fixed * full.transactions))
    return pairs[0], pairs[1]


def log_bytes(kafka: KafkaBroker, topic: str) -> int:
    """Bytes of the topic's segments on the broker's disk."""
    folders = (kafka.directory / "log").glob(f"{topic}-*")
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


class Measured(NamedTuple):
    """`full`: the backlog; `paced`: by rate, with the times from broker to commit; `decode` in
    microseconds, the others in bytes of an event or of an item.
    """

    full: Costs
    paced: dict[int, tuple[Costs, dict[float, float]]]
    decode: float
    in_log: float
    in_aof: float
    of_item: float


def measure(stage: Stage, kafka: KafkaBroker, events: int, folder: Path) -> Measured:
    """Produce the backlog, and apply it and what comes after it."""
    log.ensure_topics(stage.settings)
    produce(stage.settings, events)
    in_log = log_bytes(kafka, stage.settings.interactions_topic) / events
    consumer = Program(REFERENCE, "on_consumer", sys.executable)
    reference = run(consumer, Work(stage.settings, events, 60), folder)
    decode = 1e6 * reference.cpu_seconds / reference.events
    try:
        stage.start()
        begin = stage.snapshot()
        stage.wait(events)
        full = costs(begin, stage.snapshot())
        in_aof = int(stage.redis.info("persistence")["aof_current_size"]) / events
        paced = {rate: stage.paced(rate) for rate in RATES}
    finally:
        stage.stop()
    return Measured(full, paced, decode, in_log, in_aof, item_bytes(stage.redis))


def item_bytes(redis: Redis) -> float:
    """Bytes of an item in the popularity and in every bucket of trends of one use case."""
    a_member = {}
    for kind in ("popular", "trending"):
        names = list(redis.scan_iter(f"{kind}:*"))
        memory = sum(int(redis.memory_usage(name, samples=0) or 0) for name in names)
        a_member[kind] = memory / sum(int(redis.zcard(name)) for name in names)
    return a_member["popular"] + TREND_BUCKETS * a_member["trending"]


def store(measured: Measured) -> None:
    """Print and record the rows."""
    full, busy = measured.full, measured.paced[RATES[-1]]
    own, in_redis = fixed_and_each(busy[0], full)
    decode = (f"{REFERENCE} of an event", measured.decode)
    size = sum(len(encode_json(event)) for event in interactions(1_000)) / 1_000
    text = ("bytes of an event as JSON", size)
    rate = f"{RATES[-1]} events/s"
    median, p99 = (quantile(busy[1], share) for share in (0.5, 0.99))
    for row, value, unit, (reference, reference_value) in (
        ("event-ingest", own[1], "us of CPU an event", decode),
        ("event-redis", in_redis[1], "us of CPU an event", decode),
        ("transaction-ingest", own[0], "us of CPU a transaction", decode),
        ("transaction-redis", in_redis[0], "us of CPU a transaction", decode),
        ("event-kafka", busy[0].kafka, f"us of CPU an event at {rate}", decode),
        ("event-log-bytes", measured.in_log, "bytes an event in Kafka's log", text),
        ("event-redis-bytes", full.redis_bytes, "bytes an event to Redis", text),
        ("event-aof-bytes", measured.in_aof, "bytes an event in the AOF", text),
        ("item-counts-bytes", measured.of_item, "bytes an item in all counts of a use case", text),
        ("applied", median, f"ms from broker to commit at {rate}", ("20 ms, a target", 20.0)),
        ("applied-p99", p99, f"ms from broker to commit at {rate}", ("60 ms, a target", 60.0)),
    ):
        record(f"unit-{row}", value, unit, reference, reference_value, COMMAND)
        print(f"unit-{row:20} {value:8.1f} {unit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000, help="of the backlog")
    arguments = parser.parse_args()
    if kafka_home() is None:
        sys.exit("error: set KAFKA_HOME to an unpacked Apache Kafka 4; java must be on PATH")
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-costs-") as name,
        KafkaBroker(Path(name) / "kafka") as kafka,
        # the AOF has every event as long as it is not written anew
        RedisServer(Path(name) / "redis", options={"auto-aof-rewrite-percentage": "0"}) as server,
        Redis.from_url(server.url) as redis,
    ):
        stage = Stage(Path(name), kafka, server, redis)
        measured = measure(stage, kafka, arguments.events, Path(name) / "consumer")
    lines = {f"{rate}/s": line for rate, (line, _) in measured.paced.items()}
    for label, line in {"backlog": measured.full, **lines}.items():
        print(
            f"{label:>8}: {line.rate:8,.0f} events/s   us an event: ingest {line.own:5.1f}, Redis "
            f"{line.redis:5.1f}, Kafka {line.kafka:5.1f}   {line.redis_bytes:.0f} bytes to Redis   "
            f"{1 / line.transactions:.0f} events a transaction"
        )
    store(measured)


if __name__ == "__main__":
    main()
