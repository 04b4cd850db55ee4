"""Holds the servers, processes, topics and traffic of one schedule, and compares the result.

`finish` waits until everything is applied and archived, and compares it with the oracle.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from testing.apache import KafkaBroker
from testing.redis import RedisServer
from testing.tansu import TansuBroker
from tests import oracle
from tests.exactly_once.random_schedules.mixed_traffic import MixedTraffic
from tests.exactly_once.random_schedules.processes import Processes
from tests.exactly_once.random_schedules.topics import Topics
from tests.oracle.compare import Coordinates
from tests.oracle.records import Partition, sources
from tests.support import eventually

CATCH_UP_S = 60.0
"""Seconds for the processes to reach the ends of the logs after the last fault. Records of new
partitions are read within 30.
"""
LAG_S = 10.0
"""Seconds for the positions to pass control records (of transactions) at the end of a log."""
WINDOW = 100
"""Offsets of the duplicate window: so few that schedules cross windows, and a trimmed head is
older than a window.
"""


class World:
    """Everything of one schedule; `close` ends it. `problems`: one line for each problem so far."""

    def __init__(
        self,
        broker: KafkaBroker | TansuBroker,
        directory: Path,
        seed: int,
        *,
        is_compacted: bool = False,
    ) -> None:
        """`is_compacted`: the broker will compact `users` and `items` during the schedule."""
        self.broker, self.directory, self.random = broker, directory, random.Random(seed)
        self.redis_server = RedisServer(directory / "redis").start()
        self.settings = _settings(broker, self.redis_server, directory)
        self.topics = Topics(self.settings)
        self.processes = Processes(self.settings, directory)
        self.traffic = MixedTraffic(
            self.settings,
            seed,
            transactions=isinstance(broker, KafkaBroker),
            bad_entries=not is_compacted,
        )
        self._differences: list[str] = []
        self._former_dead_letters: dict[Coordinates, str] = {}

    @property
    def problems(self) -> list[str]:
        """What went wrong so far."""
        return [*self.processes.problems, *self._differences]

    def report(self, problem: str) -> None:
        """Add a problem."""
        self._differences.append(problem)

    def sleep(self, seconds: float) -> None:
        """Let everything run for a while, with ended processes started again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.processes.supervise()
            time.sleep(0.05)

    def redis(self) -> Redis:
        """A new client of the current Redis."""
        return Redis.from_url(self.redis_server.url)

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
        self.processes.kill_all()
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
    """Settings with small batches, caps, windows and files, so that a schedule reaches the limits
    often.
    """
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
