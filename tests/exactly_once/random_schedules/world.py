"""Holds the servers, processes, topics and traffic of one schedule, and compares the result.

`finish` waits until everything is applied and archived, and compares it with the oracle.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path

from redis import Redis

from store.state.shards import Shards
from testing.apache import KafkaBroker
from testing.redis import RedisServer
from testing.redis_cluster import RedisCluster
from testing.tansu import TansuBroker
from tests import oracle
from tests.exactly_once.random_schedules.mixed_traffic import MixedTraffic
from tests.exactly_once.random_schedules.processes import Processes
from tests.exactly_once.random_schedules.reads import Reads
from tests.exactly_once.random_schedules.topics import Topics
from tests.exactly_once.random_schedules.world_settings import (
    ONE_SERVER,
    WINDOW,
    Layout,
    settings_of,
)
from tests.oracle.compare import Coordinates
from tests.oracle.records import Partition, sources
from tests.support import eventually

CATCH_UP_S = 60.0
"""Seconds for the processes to reach the ends of the logs after the last fault. Records of new
partitions are read within 30.
"""
LAG_S = 10.0
"""Seconds for the positions to pass control records (of transactions) at the end of a log."""


class World:
    """Everything of one schedule; `close` ends it. `problems`: one line for each problem so far."""

    def __init__(
        self,
        broker: KafkaBroker | TansuBroker,
        directory: Path,
        seed: int,
        layout: Layout = ONE_SERVER,
        *,
        is_compacted: bool = False,
    ) -> None:
        """`is_compacted`: the broker will compact `users` and `items` during the schedule."""
        self.broker, self.directory, self.random = broker, directory, random.Random(seed)
        self._cluster = RedisCluster(directory / "redis") if layout.is_cluster else None
        self._server = None if layout.is_cluster else RedisServer(directory / "redis").start()
        url = self._cluster.__enter__().url if self._cluster else self.redis_server.url
        self.settings = settings_of(broker, url, directory, layout)
        self.reads = Reads(self.settings, directory) if layout.is_cluster else None
        self.topics = Topics(self.settings)
        self.processes = Processes(self.settings, directory)
        self.traffic = MixedTraffic(
            self.settings,
            seed,
            transactions=isinstance(broker, KafkaBroker),
            bad_entries=not is_compacted,
            events_per_s=layout.events_per_s,
        )
        self._differences: list[str] = []
        self._former_dead_letters: dict[Coordinates, str] = {}

    @property
    def problems(self) -> list[str]:
        """What went wrong so far."""
        reads = self.reads.problems if self.reads else []
        return [*self.processes.problems, *self._differences, *reads]

    @property
    def redis_server(self) -> RedisServer:
        """The Redis of a schedule without a cluster."""
        assert self._server is not None
        return self._server

    @redis_server.setter
    def redis_server(self, server: RedisServer) -> None:
        self._server = server

    @property
    def cluster(self) -> RedisCluster:
        """The Redis Cluster of a schedule with one."""
        assert self._cluster is not None
        return self._cluster

    def start(self) -> None:
        """Start traffic, processes and reads."""
        self.traffic.start()
        self.processes.start_ingest()
        self.processes.start_archiver()
        if self.reads:
            self.reads.start()

    def report(self, problem: str) -> None:
        """Add a problem."""
        self._differences.append(problem)

    def sleep(self, seconds: float) -> None:
        """Let everything run for a while, with ended processes started again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.processes.supervise()
            time.sleep(0.05)

    def redis(self) -> Shards:
        """New clients of the current Redis."""
        return Shards(self.settings)

    def flush(self) -> None:
        """FLUSHALL of everything."""
        if self._cluster:
            for node in self._cluster.primaries():
                node.client.flushall()
        else:
            with Redis.from_url(self.redis_server.url) as client:
                client.flushall()

    def positions(self) -> dict[int, int]:
        """Partition -> the offset of the interactions below which Redis, popularity and the archive
        are complete.
        """
        with self.redis() as redis:
            positions = oracle.positions(redis, self.settings)
            popularity = oracle.popularity_positions(redis, self.settings)
        return {
            partition: min(position, popularity[partition], self._archived(partition))
            for partition, position in positions.items()
        }

    def await_progress(self) -> None:
        """Wait until Redis and the archive have interactions, and so know the topic's id."""

        def has_progress() -> bool:
            self.processes.supervise()
            with self.redis() as redis:
                positions = oracle.positions(redis, self.settings)
            return sum(positions.values()) > 0 and sum(map(self._archived, positions)) > 0

        eventually(has_progress, "something is applied and archived", CATCH_UP_S, every=0.1)

    def await_changes(self) -> None:
        """Wait until ingest has read every change of users and items so far."""
        self.topics.record()
        logs = self.topics.logs
        changes = {
            partition: logs.after_last(partition)
            for partition in logs.ends
            if partition[0] != self.settings.interactions_topic
        }
        self._await_positions(changes, "changes that are not applied", CATCH_UP_S)

    def trim(self) -> bool:
        """Remove the head of the interactions from the broker, as far as Redis and the archive have
        it. False: nothing to remove.
        """
        offsets = {
            partition: position - WINDOW
            for partition, position in self.positions().items()
            if position > WINDOW
        }
        if not offsets:
            return False
        self.topics.trim(offsets)
        self.processes.is_log_trimmed = True
        return True

    def recreate_interactions(self) -> None:
        """Delete the interactions topic and create it again, empty. Traffic must pause.

        The records of the former topic are forgotten, except for its dead letters.
        """
        topic = self.settings.interactions_topic
        self.topics.record()
        self._former_dead_letters = {
            key: code
            for key, code in oracle.fold(self.settings, self.topics.logs).dead.items()
            if key[0] == topic
        }
        self.topics.recreate(topic)
        self.processes.is_log_trimmed = False

    def finish(self) -> oracle.Expected:
        """Stop the traffic, wait until everything is applied and archived, and compare.

        Adds the differences to `problems`.
        """
        self.traffic.pause()
        self.topics.stop_recording()
        self.topics.record()
        logs = self.topics.logs
        last = {partition: logs.after_last(partition) for partition in logs.ends}
        self._await_positions(last, "records that are not applied", CATCH_UP_S)
        self._await_positions(logs.ends, "a lag at the end of the log", LAG_S)
        self.processes.archive_the_rest(CATCH_UP_S)
        expected = oracle.fold(self.settings, logs)
        if self.topics.is_compacted:
            self._expect_compacted_dead_letters(expected)
        with self.redis() as redis:
            self._differences += oracle.differences(redis, self.settings, expected)
        self._differences += oracle.dead_letter_differences(
            self.settings, expected, self._former_dead_letters
        )
        self._differences += oracle.archive_differences(self.settings, logs)
        return expected

    def close(self) -> None:
        """End all processes and the Redis, and delete the topics."""
        self.topics.stop_recording()
        if self.reads:
            self.reads.stop()
        self.processes.kill_all()
        if self._cluster:
            self._cluster.__exit__()
        else:
            self.redis_server.kill()
        self.topics.delete()

    def _expect_compacted_dead_letters(self, expected: oracle.Expected) -> None:
        """Make the dead letters of compacted topics optional: compaction may remove a bad record
        before ingest reads it.
        """
        compacted = {
            key: code
            for key, code in expected.dead.items()
            if key[0] != self.settings.interactions_topic
        }
        self._former_dead_letters |= compacted
        expected.dead = {key: code for key, code in expected.dead.items() if key not in compacted}

    def _await_positions(
        self, ends: Mapping[Partition, int], problem: str, timeout_s: float
    ) -> None:
        """Wait until the positions reach `ends`; a timeout is a problem."""

        def have_reached() -> bool:
            self.processes.supervise()
            return not self._behind(ends)

        try:
            eventually(have_reached, problem, timeout_s, every=0.1)
        except AssertionError:
            self.report(
                f"{problem}, after {timeout_s:g} s: {self._behind(ends)}; "
                f"{self.processes.describe('ingest')}"
            )

    def _behind(self, ends: Mapping[Partition, int]) -> dict[str, str]:
        """Partition -> its position, of the partitions in `ends` that have not reached them."""
        behind = {}
        logs, interactions = self.topics.logs, self.settings.interactions_topic
        with self.redis() as redis:
            popularity = oracle.popularity_positions(redis, self.settings)
            for topic in sources(self.settings):
                positions = oracle.positions(redis, self.settings, topic)
                for partition in logs.partitions(topic):
                    if partition not in ends:
                        continue
                    number = partition[1]
                    position, summed = positions.get(number, 0), popularity.get(number, 0)
                    if position < ends[partition] or (
                        topic == interactions and summed < logs.after_last(partition)
                    ):
                        behind[f"{topic.split('-')[0]}/{number}"] = (
                            f"{position} of {ends[partition]}, popularity {summed}"
                        )
        return behind

    def _archived(self, partition: int) -> int:
        """The offset below which the archive has a partition of the interactions."""
        topic = Path(self.settings.archive_url) / self.settings.interactions_topic
        files = (topic / f"partition={partition}").glob("[0-9]*.parquet")
        return max((int(path.stem.partition("-")[2]) for path in files), default=0)
