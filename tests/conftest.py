"""Real servers for every test that crosses a process, and settings that no two tests share.

A test that uses `broker`, `settings` or `spawn` runs on the embedded Tansu broker; marked
`process`, it runs on Apache Kafka as well where KAFKA_HOME and java are there; marked `apache`, on
Apache Kafka only (what needs a log that survives the broker).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from testing import ports
from testing.apache import KafkaBroker, kafka_home
from testing.brokers import BrokerKind
from testing.brokers import broker as make_broker
from testing.process import Child, module, settings_environment
from testing.redis import RedisServer
from testing.tansu import TansuBroker

Spawn = Callable[..., Child]


def pytest_configure() -> None:
    """Give each of the workers that run side by side ports of its own: one must not take the port
    of a server that another is about to start, or start again. Limit no example by time.
    """
    hypothesis.settings.register_profile(
        "any-speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("any-speed")
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        ports.PORTS = ports.PORTS[int(worker.removeprefix("gw")) :: workers]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files with the longest time limit first: none is left to run alone at the end."""
    limits: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        limit = float(mark.args[0]) if mark is not None else 0.0
        limits[item.path] = max(limit, limits.get(item.path, 0.0))
    items.sort(key=lambda item: -limits[item.path])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker" not in metafunc.fixturenames and "own_broker" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    kinds = (
        ["apache"]
        if "apache" in marks
        else ["tansu", "apache"]
        if "process" in marks and kafka_home()
        else ["tansu"]
    )
    name = "own_broker" if "own_broker" in metafunc.fixturenames else "broker"
    scope = "function" if name == "own_broker" else "session"
    metafunc.parametrize(name, kinds, indirect=True, scope=scope)  # type: ignore[arg-type]


def _started(directory: Path, kind: BrokerKind) -> KafkaBroker | TansuBroker:
    if kind == "apache" and kafka_home() is None:
        pytest.skip("needs Apache Kafka: KAFKA_HOME and java")
    return make_broker(directory, kind).start()


@pytest.fixture(autouse=True)
def _no_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's .env and exported settings must not decide whether a test passes."""
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the whole run; a test that kills Redis uses `own_redis_server`."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, to kill and restart."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of an empty Redis (bytes in, bytes out)."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.config_resetstat()
        yield client


@pytest.fixture(scope="session")
def tansu_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker | TansuBroker]:
    """The embedded broker of the whole run."""
    server = _started(tmp_path_factory.mktemp("tansu"), "tansu")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def apache_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker | TansuBroker]:
    """The Apache Kafka of the whole run."""
    server = _started(tmp_path_factory.mktemp("apache"), "apache")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> KafkaBroker | TansuBroker:
    """One broker of each kind for the whole run; a test that kills it uses `own_broker`.

    The servers are fixtures of their own: pytest ends a fixture whenever the next test has another
    parameter, and a file has tests of both kinds.
    """
    server: KafkaBroker | TansuBroker = request.getfixturevalue(f"{request.param}_broker")
    return server


@pytest.fixture
def own_broker(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[KafkaBroker | TansuBroker]:
    """A broker of this test's own, to kill and restart; takes the place of `broker`."""
    server = _started(tmp_path / "broker", request.param)
    yield server
    server.stop()


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> Settings:
    """Settings with topics, groups and folders of this test's own, pointing at `redis_server` and
    the test's broker.

    A test that uses neither `broker` nor `own_broker` gets an address where no broker answers.
    """
    names = request.fixturenames
    used = next((name for name in ("own_broker", "broker") if name in names), None)
    own_redis = (
        request.getfixturevalue("own_redis_server") if "own_redis_server" in names else redis_server
    )
    unique = uuid.uuid4().hex[:10]
    return Settings(
        kafka_bootstrap_servers=request.getfixturevalue(used).address if used else "127.0.0.1:9",
        redis_url=SecretStr(own_redis.url),
        interactions_topic=f"interactions-{unique}",
        items_topic=f"items-{unique}",
        users_topic=f"users-{unique}",
        ingest_group=f"ingest-{unique}",
        archive_group=f"archive-{unique}",
        model_updates_topic=f"model-updates-{unique}",
        retrain_requests_topic=f"retrain-requests-{unique}",
        live_group=f"live-{unique}",
        trainer_group=f"trainer-{unique}",
        # the minimum: Tansu makes the first member of a group wait for half of it
        session_timeout_s=6,
        archive_url=str(tmp_path / "archive"),
        models_path=tmp_path / "models",
        api_port=0,
        # torch takes seconds to load; tests/training/job/test_retrain_with_two_tower.py has it on
        enable_two_tower=False,
        # a search takes its time: tests/training/job/test_tuning.py has it on
        tune_seconds=0,
    )


@pytest.fixture
def spawn(settings: Settings, tmp_path: Path) -> Iterator[Spawn]:
    """`spawn("streams", "ingest", SOME_VARIABLE="x")`: `python -m streams ingest` with `settings`,
    killed when the test ends.

    Its output is in `child.log`.
    """
    children: list[Child] = []

    def start(name: str, *arguments: str, **environment: str) -> Child:
        child = module(
            name,
            *arguments,
            directory=tmp_path / "children",
            environment={**settings_environment(settings), **environment},
            label=f"{name}-{len(children)}",
        )
        children.append(child)
        return child.start()

    yield start
    for child in children:
        child.kill()
