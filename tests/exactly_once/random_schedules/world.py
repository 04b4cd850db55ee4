"""One schedule's world: topics, a Redis and processes of its own, their supervision, and the
comparison with the oracle at the end.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from store.log import client as log
from testing.apache import KafkaBroker
from testing.process import Child, module, settings_environment
from testing.redis import RedisServer
from testing.tansu import TansuBroker
from tests import oracle
from tests.exactly_once.mixed_traffic import MixedTraffic
from tests.oracle.compare import Coordinates
from tests.oracle.records import Partition, sources
from tests.support import eventually

CATCH_UP_S = 60.0
"""Seconds for the processes to reach the logs' ends, once the faults have ceased; new partitions
are read within 30.
"""
LAG_S = 10.0
"""Seconds for the positions to pass control records (of transactions) at the end of a log."""
END_S = 40.0
"""Seconds for a process to end that must end: a read that waits for a server times out after 10."""
RECORD_S = 0.4
"""Seconds between two reads of the logs while the broker compacts them."""
WINDOW = 100
"""Offsets within which an event counts once: small, so that windows are crossed, and a trimmed head
is older than them.
"""

_ADVICE = "python -m streams rebuild"
_RECREATED = "created anew"
_SERVER_AWAY = (
    "is the broker up",
    "cannot be reached",
    "did not answer",
    "Error 111",
    "Connection refused",
    "LOADING",
)
"""What a process says that was started while a server was away: it is started again, as a
supervisor of services does.
"""


_COMPACTION = {
    "segment.ms": "500",
    "min.cleanable.dirty.ratio": "0.01",
    # longer than no ingest runs: a deletion that is compacted away before is lost
    "min.compaction.lag.ms": "6000",
    "delete.retention.ms": "0",
}


class Recorder(threading.Thread):
    """Reads the logs every RECORD_S, so that compaction drops nothing that was not recorded."""

    def __init__(self, logs: oracle.RecordedLog, topics: list[str]) -> None:
        super().__init__(name="recorder")
        self._logs, self._topics, self._ended = logs, topics, threading.Event()

    def run(self) -> None:
        """The thread."""
        while not self._ended.wait(RECORD_S):
            self._logs.read(self._topics)

    def end(self) -> None:
        """Stop after a last read."""
        self._ended.set()
        self.join()


class Process(NamedTuple):
    """A child, and what it is: `ingest` or `archive`."""

    kind: str
    child: Child


class World:
    """Holds everything of one schedule; `close` ends it.

    `problems`: what is wrong so far, one line each.
    """

    def __init__(
        self,
        broker: KafkaBroker | TansuBroker,
        directory: Path,
        seed: int,
        *,
        is_compacted: bool = False,
    ) -> None:
        """`is_compacted`: the broker will compact `users` and `items` while the schedule runs
        (`compact`).
        """
        self.broker, self.directory, self.random = broker, directory, random.Random(seed)
        self.is_apache = isinstance(broker, KafkaBroker)
        self.redis_server = RedisServer(directory / "redis").start()
        self.settings = _settings(broker, self.redis_server, directory)
        log.ensure_topics(self.settings)
        # held: its end cancels what it was asked for
        self.admin: AdminClient = log.admin(self.settings)
        self.logs = oracle.RecordedLog(self.settings)
        self.traffic = MixedTraffic(
            self.settings, seed, transactions=self.is_apache, bad_entries=not is_compacted
        )
        self._recorder: Recorder | None = None
        self.processes: list[Process] = []
        self.problems: list[str] = []
        self.restarts = self.rebuilds = 0
        self.is_trimmed = False
        self.former_dead: dict[Coordinates, str] = {}
        self._children = 0

    # Processes

    def start_ingest(self, *arguments: str, group: str | None = None) -> Process:
        """Start an ingest process; in a group of its own where none is given, so that it never
        waits for a session to end.
        """
        return self._start(
            "ingest",
            "tests.exactly_once.ingest_that_fails",
            *arguments,
            group=group or f"ingest-{uuid.uuid4().hex[:8]}",
        )

    def start_archiver(self) -> Process:
        """Start an archive process, in a group of its own."""
        return self._start("archive", "streams", "archive", group=f"archive-{uuid.uuid4().hex[:8]}")

    def of(self, kind: str) -> list[Process]:
        """The processes of a kind."""
        return [process for process in self.processes if process.kind == kind]

    def kill(self, process: Process) -> None:
        """kill -9."""
        process.child.kill()
        self.processes.remove(process)

    def stop_all(self, kind: str) -> None:
        """Ask all processes of a kind to end."""
        for process in self.of(kind):
            process.child.stop()
            self.processes.remove(process)

    def supervise(self) -> None:
        """Start again what has ended; an end for which there is no reason is a problem."""
        for process in list(self.processes):
            code = process.child.exit_code
            # a rebuild for another one has ended all of its kind
            if code is None or process not in self.processes:
                continue
            self.processes.remove(process)
            text = process.child.tail(3)
            self.restarts += 1
            if code < 0:
                pass  # killed at a step of ingest
            elif process.kind == "ingest" and self.is_trimmed and _ADVICE in text:
                self.rebuild()
            elif not any(reason in text for reason in _SERVER_AWAY):
                self.problems.append(process.child.describe("ended by itself"))
            self._start_again(process.kind)

    def rebuild(self, *arguments: str) -> None:
        """`streams rebuild` while no ingest runs, as an operator is told to."""
        self.rebuilds += 1
        self.stop_all("ingest")
        child = self._start("rebuild", "streams", "rebuild", *arguments).child
        self.processes.pop()
        if child.wait(60) != 0:
            self.problems.append(child.describe("failed"))

    def sleep(self, seconds: float) -> None:
        """Let everything run for a while, supervised."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.supervise()
            time.sleep(0.05)

    def _start_again(self, kind: str) -> None:
        if kind == "archive":
            self.start_archiver()
        elif not self.of("ingest"):
            self.start_ingest()

    def _start(self, kind: str, name: str, *arguments: str, group: str | None = None) -> Process:
        self._children += 1
        environment = settings_environment(self.settings)
        if group is not None:
            environment[f"{kind.upper()}_GROUP"] = group
        child = module(
            name,
            *arguments,
            directory=self.directory / "children",
            environment=environment,
            label=f"{kind}-{self._children}",
        )
        process = Process(kind, child.start())
        self.processes.append(process)
        return process

    # Redis and Kafka

    def redis(self) -> Redis:
        """A new client of the Redis that stands now."""
        return Redis.from_url(self.redis_server.url)

    def positions(self) -> dict[int, int]:
        """The offsets of the interactions below which Redis, its popularities and the archive hold
        everything.
        """
        with self.redis() as redis:
            stands = oracle.positions(redis, self.settings)
            popularity = oracle.popularity_positions(redis, self.settings)
        archived = {partition: self._archived(partition) for partition in stands}
        return {
            partition: min(at, popularity[partition], archived[partition])
            for partition, at in stands.items()
        }

    def await_progress(self) -> None:
        """Until Redis and the archive hold something of the interactions, and so know which topic
        they count in.
        """

        def has_progress() -> bool:
            self.supervise()
            with self.redis() as redis:
                stands = oracle.positions(redis, self.settings)
            return sum(stands.values()) > 0 and sum(map(self._archived, stands)) > 0

        eventually(has_progress, "something is applied and archived", CATCH_UP_S, every=0.1)

    def _archived(self, partition: int) -> int:
        folder = (
            Path(self.settings.archive_url)
            / self.settings.interactions_topic
            / f"partition={partition}"
        )
        return max(
            (int(path.stem.partition("-")[2]) for path in folder.glob("[0-9]*.parquet")), default=0
        )

    def trim(self) -> bool:
        """Drop the head of the interactions from the broker, as far as Redis and the archive have
        it. False: there is none.
        """
        limits = {
            partition: at - WINDOW for partition, at in self.positions().items() if at > WINDOW
        }
        if not limits:
            return False
        self.logs.read(sources(self.settings))
        places = [
            TopicPartition(self.settings.interactions_topic, *limit) for limit in limits.items()
        ]
        for trimmed in self.admin.delete_records(places).values():
            trimmed.result(30)
        self.is_trimmed = True
        return True

    def compact(self) -> None:
        """From now on the broker compacts `users`, `items` and the deletions within seconds,
        tombstones included.
        """
        self._recorder = Recorder(self.logs, sources(self.settings))
        self._recorder.start()
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in _COMPACTION.items()
        ]
        topics = (
            self.settings.users_topic,
            self.settings.items_topic,
            self.settings.deletions_topic,
        )
        resources = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
            for topic in topics
        ]
        for altered in self.admin.incremental_alter_configs(resources).values():
            altered.result(30)

    def add_partitions(self, topic: str, count: int) -> None:
        """Raise the number of partitions of a topic."""
        for added in self.admin.create_partitions([NewPartitions(topic, count)]).values():
            added.result(30)

    def recreate_interactions(self) -> None:
        """Delete the topic and create it again, empty.

        Traffic must pause. What the log held is forgotten, save its dead letters.
        """
        topic = self.settings.interactions_topic
        self.logs.read(sources(self.settings))
        self.former_dead = {
            key: code
            for key, code in oracle.fold(self.settings, self.logs).dead.items()
            if key[0] == topic
        }
        for deleted in self.admin.delete_topics([topic]).values():
            deleted.result(30)
        eventually(
            lambda: topic not in self.admin.list_topics(timeout=10).topics, "the topic is gone"
        )
        eventually(
            lambda: topic in log.ensure_topics(self.settings),
            "the topic is created again",
            every=0.2,
        )
        self.logs.forget(topic)
        self.is_trimmed = False

    # The end

    def finish(self) -> oracle.Expected:
        """Stop the traffic, let everything reach the logs' ends, and compare: `problems` has the
        differences afterwards.
        """
        self.traffic.pause()
        if self._recorder is not None:
            self._recorder.end()
        self.logs.read(sources(self.settings))
        for what, ends, timeout in (
            (
                "records that are not applied",
                {each: self.logs.after_last(each) for each in self.logs.ends},
                CATCH_UP_S,
            ),
            ("a lag at the end of the log", self.logs.ends, LAG_S),
        ):
            try:
                eventually(lambda ends=ends: self._has_reached(ends), what, timeout, every=0.1)
            except AssertionError:
                self.problems.append(
                    f"{what}, after {timeout:g} s: {self._behind(ends)}; {self._tails()}"
                )
        self.stop_all("archive")
        child = self._start(
            "archive", "streams", "archive", "--until-idle", group=f"archive-{uuid.uuid4().hex[:8]}"
        ).child
        self.processes.pop()
        if child.wait(CATCH_UP_S) != 0:
            self.problems.append(child.describe("failed"))
        expected = oracle.fold(self.settings, self.logs)
        # bad records of compacted topics may be gone before ingest reads them
        if self._recorder is not None:
            compacted = {
                key: code
                for key, code in expected.dead.items()
                if key[0] != self.settings.interactions_topic
            }
            self.former_dead |= compacted
            expected.dead = {
                key: code for key, code in expected.dead.items() if key not in compacted
            }
        with self.redis() as redis:
            self.problems += oracle.differences(redis, self.settings, expected)
        self.problems += oracle.dead_letter_differences(self.settings, expected, self.former_dead)
        self.problems += oracle.archive_differences(self.settings, self.logs)
        return expected

    def close(self) -> None:
        """End all processes and the Redis, and delete the topics."""
        if self._recorder is not None:
            self._recorder.end()
        for process in self.processes:
            process.child.kill()
        self.redis_server.kill()
        prefix = self.settings.interactions_topic.removeprefix("interactions")
        names = [name for name in self.admin.list_topics(timeout=10).topics if prefix in name]
        self.admin.delete_topics(names)

    def _has_reached(self, ends: Mapping[Partition, int]) -> bool:
        self.supervise()
        return not self._behind(ends)

    def _behind(self, ends: Mapping[Partition, int]) -> dict[str, str]:
        """Partition -> where Redis stands, of those that are before `ends`."""
        behind = {}
        with self.redis() as redis:
            popularity = oracle.popularity_positions(redis, self.settings)
            for topic in sources(self.settings):
                stands = oracle.positions(redis, self.settings, topic)
                for partition in self.logs.partitions(topic):
                    at, popular = stands.get(partition[1], 0), popularity.get(partition[1], 0)
                    if at < ends[partition] or (
                        topic == self.settings.interactions_topic
                        and popular < self.logs.after_last(partition)
                    ):
                        behind[f"{topic.split('-')[0]}/{partition[1]}"] = (
                            f"{at} of {ends[partition]}, popularity {popular}"
                        )
        return behind

    def _tails(self) -> str:
        return "; ".join(process.child.describe("runs") for process in self.of("ingest"))


_EXPERIMENTS = """
[experiments.blend]
users = [0.0, 0.6]
variants = { control = {}, half = { weight = 2, ensemble_als_weight = 0.5 } }

[experiments.colder]
users = [0.6, 0.9]
outcomes = ["like", "rating"]
variants = { control = {}, colder = { cold_start_threshold = 8 } }
"""


def _settings(
    broker: KafkaBroker | TansuBroker, redis_server: RedisServer, directory: Path
) -> Settings:
    """Small batches, caps, windows and files, so that their edges are crossed often."""
    unique = uuid.uuid4().hex[:10]
    experiments = directory / "experiments.toml"
    experiments.write_text(_EXPERIMENTS)
    return Settings(
        kafka_bootstrap_servers=broker.address,
        redis_url=SecretStr(redis_server.url),
        interactions_topic=f"interactions-{unique}",
        items_topic=f"items-{unique}",
        users_topic=f"users-{unique}",
        model_updates_topic=f"model-updates-{unique}",
        retrain_requests_topic=f"retrain-requests-{unique}",
        session_timeout_s=6.0,
        archive_url=str(directory / "archive"),
        archive_file_events=150,
        archive_file_s=0.5,
        models_path=directory / "models",
        experiments_path=experiments,
        transaction_events=40,
        history_cap=50,
        dedup_window=WINDOW,
    )
