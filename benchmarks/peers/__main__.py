"""Compares ingest with other stream processors: `KAFKA_HOME=... python -m benchmarks.peers`.

Bytewax, Quix Streams, Faust and `streams ingest` read the same topic of one Apache Kafka and
compute the same: events per user and type, and each user's last 50 events. Ingest also refuses
duplicates, and adds up popularity and trends, which the others do not. They run in turn, one
process each, beside nothing else; with --neighbour also a second time beside processes that want
half of every core. The reference is a consumer that polls and decodes the same topic, in the same
turn. Each state of 20 users is compared with the events that were sent. Printed are events a
second and microseconds of processor time an event, of the processor's own process and of the
servers that keep its state (Kafka with its changelog, Redis); the median of the rounds is
recorded. With --crash each is killed in the middle and started again, and what it lost or counted
twice is printed; docs/scale.md has what each documents about that. `make bench-peers` installs
requirements/peers.txt into .venv-peers first: the peers need other versions than the product.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr
from redis import Redis

from benchmarks.measurements import record
from benchmarks.neighbour import SHARE, neighbour
from benchmarks.peers import crash, ours
from benchmarks.peers.counts import HISTORY, Event
from benchmarks.peers.events import SAMPLES, check, produce
from benchmarks.peers.runs import REFERENCE, TIMEOUT_S, Program, Work, run
from core.settings import Settings
from store.log import client as log
from testing.apache import KafkaBroker, kafka_home
from testing.process import ROOT
from testing.redis import RedisServer

COMMAND = "KAFKA_HOME=... make bench-peers"
INGEST = "ingest"
PEERS = {
    "bytewax": ("on_bytewax", ""),
    "quix": ("on_quix", "at-least-once"),
    "quix-exactly-once": ("on_quix", "exactly-once"),
    "faust": ("on_faust", "at_least_once"),
}
"""Name -> module in this folder, processing guarantee."""
DURABILITY = {
    INGEST: "Redis (AOF every second), with the position in one transaction",
    "bytewax": "memory, and every 10 s SQLite files with the offsets",
    "quix": "RocksDB and a changelog topic, every 5 s; then the offsets",
    "quix-exactly-once": "RocksDB and a changelog topic, every 5 s in a transaction of Kafka",
    "faust": "RocksDB and a changelog topic at each event; the offsets every 2.8 s",
}
"""Name -> where its state is after a crash of the process."""


class Cost(NamedTuple):
    """Of one run: events a second, and microseconds of processor time an event."""

    rate: float
    own_us: float
    servers_us: float


class Stage:
    """The servers, with the events in the topic."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments, self._folder = arguments, folder
        self.kafka, self.redis_server = KafkaBroker(folder / "kafka"), RedisServer(folder / "redis")
        self._sent: dict[str, list[Event]] = {}
        self._runs = 0

    def fill(self) -> None:
        """Create the topics and send the events."""
        self._settings = Settings(
            kafka_bootstrap_servers=self.kafka.address,
            redis_url=SecretStr(self.redis_server.url),
            log_level="warning",
            history_cap=HISTORY,
        )
        log.ensure_topics(self._settings)
        samples = crash.SAMPLES if self._arguments.crash else SAMPLES
        self._sent = produce(self._settings, self._arguments.events, samples)

    def run(self, name: str) -> Cost:
        """Measure one processor. Raises RuntimeError when it fails or counts wrongly."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        servers = [self.kafka.child.pid, self.redis_server.child.pid]
        busy = sum(map(ours.cpu_seconds, servers))
        if name == INGEST:
            settings = self._settings.model_copy(update={"ingest_group": folder.name})
            with Redis.from_url(self.redis_server.url) as redis:
                report = ours.measure(settings, redis, self._arguments.events, folder)
        else:
            work = Work(self._settings, self._arguments.events, self._arguments.seconds)
            report = run(self._program(name), work, folder)
        busy = sum(map(ours.cpu_seconds, servers)) - busy
        if name != REFERENCE:
            whole = name == INGEST or report.events + 1 >= self._arguments.events
            check(name, report.samples, self._sent, whole)
        return Cost(
            report.events / report.seconds,
            1e6 * report.cpu_seconds / report.events,
            1e6 * busy / report.events,
        )

    def kill(self, name: str) -> crash.Errors:
        """Kill one processor in the middle and start it again; what it then counts wrongly."""
        self._runs += 1
        folder, events = self._folder / f"run-{self._runs}", self._arguments.events
        kill_after = int(events * crash.KILL_AFTER)
        if name == INGEST:
            settings = self._settings.model_copy(update={"ingest_group": folder.name})
            with Redis.from_url(self.redis_server.url) as redis:
                ours.crash(settings, redis, events, kill_after, folder)
                return crash.compare(ours.states(redis, crash.SAMPLES), self._sent)
        work = Work(self._settings, events, TIMEOUT_S, crash.SAMPLES, kill_after)
        with suppress(RuntimeError):  # it ends without a report
            run(self._program(name), work, folder)
        report = run(self._program(name), work._replace(kill_after=0, resume=True), folder)
        return crash.compare(report.samples, self._sent)

    def _program(self, name: str) -> Program:
        module, guarantee = PEERS.get(name, ("on_consumer", ""))
        python = self._arguments.peer_python if name in PEERS else sys.executable
        return Program(name, module, python, guarantee)


def median(costs: list[Cost]) -> Cost:
    """The median of each column."""
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def rounds(stage: Stage, names: list[str], count: int, label: str) -> dict[str, Cost]:
    """Run every processor `count` times, in turn; the medians, which are printed."""
    runs: dict[str, list[Cost]] = {name: [] for name in names}
    for number in range(count):
        for name in names:
            cost = stage.run(name)
            runs[name].append(cost)
            print(f"{label}, round {number + 1}: {_line(name, cost)}", flush=True)
    medians = {name: median(costs) for name, costs in runs.items()}
    reference = medians[REFERENCE]
    for name, cost in medians.items():
        if name in DURABILITY:
            print(f"{name:18} keeps its state in {DURABILITY[name]}")
        print(
            f"{label}, median: {_line(name, cost)}   rate {cost.rate / reference.rate:5.2f}, "
            f"own processor time {cost.own_us / reference.own_us:5.1f} of poll and decode",
            flush=True,
        )
    return medians


def _line(name: str, cost: Cost) -> str:
    return (
        f"{name:18} {cost.rate:8,.0f} events/s   {cost.own_us:6.1f} us of its own and "
        f"{cost.servers_us:6.1f} us of the servers an event"
    )


def store(medians: dict[str, Cost], suffix: str) -> None:
    """Record two rows for each processor."""
    reference = medians[REFERENCE]
    for name, cost in medians.items():
        if name == REFERENCE:
            continue
        words = f"{REFERENCE} in the same turns"
        record(f"peers-{name}{suffix}", cost.rate, "events/s", words, reference.rate, COMMAND)
        record(
            f"peers-{name}-cpu{suffix}",
            cost.own_us,
            f"us of CPU an event, and {cost.servers_us:.0f} us of Kafka and Redis",
            words,
            reference.own_us,
            COMMAND,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=300_000, help="in the topic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="end a slow run after so long")
    parser.add_argument("--only", nargs="+", choices=[INGEST, *PEERS], help="these alone; no rows")
    parser.add_argument(
        "--neighbour",
        action="store_true",
        help=f"afterwards again, beside processes that want {SHARE:.0%}% of every core",
    )
    parser.add_argument(
        "--crash",
        action="store_true",
        help="instead: kill each in the middle, start it again, and compare its counts; no rows",
    )
    parser.add_argument(
        "--peer-python",
        default=str(ROOT / ".venv-peers" / "bin" / "python"),
        help="with the packages of requirements/peers.txt (default: that of .venv-peers)",
    )
    arguments = parser.parse_args()
    if kafka_home() is None:
        sys.exit("error: set KAFKA_HOME to an unpacked Apache Kafka 4; java must be on PATH")
    if not os.access(arguments.peer_python, os.X_OK):
        sys.exit(f"error: there is no {arguments.peer_python}; run make bench-peers, or name one")
    names = [REFERENCE, *(arguments.only or (INGEST, *PEERS))]
    with tempfile.TemporaryDirectory(prefix="eddyline-peers-") as name:
        stage = Stage(arguments, Path(name))
        with stage.kafka, stage.redis_server:
            stage.fill()
            if arguments.crash:
                for contender in names[1:]:
                    errors = stage.kill(contender)
                    print(f"{contender:18} killed once: {errors}", flush=True)
                return
            stage.run(REFERENCE)  # a Java broker compiles its hot code first
            for label, suffix in (("quiet", ""), ("neighbour", "-neighbour")):
                if suffix and not arguments.neighbour:
                    continue
                beside = neighbour(Path(name) / "neighbour") if suffix else nullcontext()
                with beside:
                    time.sleep(1)
                    medians = rounds(stage, names, arguments.rounds, label)
                if not arguments.only:
                    store(medians, suffix)


if __name__ == "__main__":
    main()
