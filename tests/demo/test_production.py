"""The demo touches nothing of what `.env` and exported variables name."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from redis import Redis

from core.settings import Settings
from store.log.producer import Producer
from store.log.reader import LogReader
from testing.apache import KafkaBroker
from testing.process import ROOT
from testing.redis import RedisServer
from testing.tansu import TansuBroker
from tests.demo.test_demo import RUN_TIMEOUT_S, Run
from tests.structure.tree import ROOMS

pytestmark = pytest.mark.timeout(RUN_TIMEOUT_S + 100)
ON_SERVERS = ("--once", "--servers", "environment")
TINY_MARKETPLACE = ("--users", "100", "--items", "40", "--events", "2000")


class Production:
    """A Kafka and a Redis with data, an archive and a registry, and the settings that name them."""

    def __init__(self, settings: Settings, redis: Redis, folder: Path) -> None:
        self.settings, self._redis = settings, redis
        redis.hset("user:42", "events", 17)
        redis.hset(f"ingest:{settings.interactions_topic}:0", "position", 17)
        folder.mkdir()
        for name in ("archive", "models"):
            (folder / name).mkdir()
            (folder / name / "precious").write_text("1")
        (folder / "password").write_text("not-to-be-used\n")
        self.folder = folder
        self.names: dict[str, Any] = {
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "REDIS_URL": settings.redis_url.get_secret_value(),
            "INTERACTIONS_TOPIC": settings.interactions_topic,
            "ITEMS_TOPIC": settings.items_topic,
            "USERS_TOPIC": settings.users_topic,
            "ARCHIVE_URL": str(folder / "archive"),
            "MODELS_PATH": str(folder / "models"),
            "COLD_START_THRESHOLD": "4",
            "KAFKA_SASL_PASSWORD_FILE": str(folder / "password"),
        }
        self.publish(settings.interactions_topic)

    def publish(self, topic: str) -> None:
        """Put one record into the log."""
        with Producer(self.settings) as producer:
            producer.publish(topic, b"42", b"{}").result(30)

    def contents(self) -> object:
        """Everything in it that a demo could change."""
        client = AdminClient({"bootstrap.servers": self.settings.kafka_bootstrap_servers})
        topics = sorted(client.list_topics(timeout=30).topics)
        with LogReader(self.settings, "test") as reader:
            log = reader.partitions(self.settings.interactions_topic)
            ends = {partition: reader.ends(partition, 0) for partition in log}
        values = {key: self._redis.dump(key) for key in self._redis.scan_iter()}
        files = {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}
        return topics, ends, values, files

    def commands(self) -> set[str]:
        """The commands that its Redis has run since they were last counted."""
        names = {name.removeprefix("cmdstat_") for name in self._redis.info("commandstats")}
        self._redis.config_resetstat()
        return names


@pytest.fixture
def production(
    settings: Settings, redis: Redis, broker: KafkaBroker | TansuBroker, tmp_path: Path
) -> Production:
    return Production(settings, redis, tmp_path / "production")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project, in which a test may write a `.env`."""
    copy = tmp_path / "clone"
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__", "artifacts")
        shutil.copytree(ROOT / room, copy / room, ignore=ignored)
    yield copy
    shutil.rmtree(copy)


def test_the_demo_touches_nothing_that_env_file_and_exported_variables_name(
    production: Production, clone: Path, tmp_path: Path
) -> None:
    lines = [f"{name}={value}\n" for name, value in production.names.items()]
    (clone / ".env").write_text("".join(lines))
    before = production.contents()
    production.commands()
    exported = {**production.names, "redis_url": production.names["REDIS_URL"]}
    with Run(tmp_path / "demo", "--once", *TINY_MARKETPLACE, repository=clone, **exported) as run:
        assert run.end() == 0, run.text
    assert production.commands() <= {"info", "config|resetstat"}, "the demo has spoken to it"
    assert production.contents() == before
    assert "three answers" in run.text


def test_make_passes_servers_to_the_demo_only_from_its_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVERS", "environment")

    def command(*arguments: str) -> str:
        made = subprocess.run(
            ["make", "--dry-run", "demo", *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        return next(line for line in made.stdout.splitlines() if "-m demo" in line)

    assert "environment" not in command()
    assert "--servers environment" in command("SERVERS=environment")


def test_the_demo_refuses_a_redis_that_holds_other_data(
    production: Production, tmp_path: Path
) -> None:
    before = production.contents()
    with Run(tmp_path / "demo", *ON_SERVERS, **production.names) as run:
        assert run.end() == 1
    state = f"the state of the topic {production.settings.interactions_topic}"
    assert f"the Redis of REDIS_URL holds {state}, not only" in run.text
    assert "Traceback" not in run.text
    assert production.contents() == before


def test_the_demo_refuses_keys_of_another_program_in_redis(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    redis.set("session:1", "of a shop")
    with Run(tmp_path / "demo", *ON_SERVERS, REDIS_URL=redis_server.url) as run:
        assert run.end() == 1
    assert "the Redis of REDIS_URL holds 1 keys, not only the state of topics" in run.text
    assert redis.keys() == [b"session:1"]


def test_the_demo_refuses_topics_with_records_that_no_demo_wrote(
    production: Production, redis: Redis, tmp_path: Path
) -> None:
    redis.flushall()
    topic = f"eddyline-demo-{production.settings.interactions_topic}"
    production.publish(topic)
    before = production.contents()
    with Run(tmp_path / "demo", *ON_SERVERS, **production.names) as run:
        assert run.end() == 1
    assert f"the topic {topic} of Kafka at " in run.text
    assert production.contents() == before


def test_the_demo_clears_no_folder_that_it_did_not_make(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with Run(folder, "--once") as run:
        assert run.end() == 1
    assert f"error: {folder} holds files that no demo wrote" in run.text
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
