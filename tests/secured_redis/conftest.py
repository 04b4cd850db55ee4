"""Redis and Valkey with TLS, and settings for these and for tests that run processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.settings import Settings
from store.log import client as log
from testing.certificates import Certificates
from testing.redis import PROGRAMS, RedisServer, program_on_path
from tests.exactly_once.conftest import EXPERIMENTS
from tests.support import skipped_without_tls


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("redis-certificates"))


@pytest.fixture(scope="session", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Path:
    """Redis, then Valkey, where they are on PATH."""
    program = program_on_path(request.param)
    if program is None:
        pytest.skip(f"needs {request.param} 7 or newer on PATH")
    return program


@pytest.fixture(scope="session")
def tls_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, program: Path
) -> Iterator[RedisServer]:
    directory = tmp_path_factory.mktemp("redis-tls")
    server = RedisServer(directory, binary=program, certificates=certificates)
    with skipped_without_tls():
        server.start()
    yield server
    server.stop()


@pytest.fixture
def tls_settings(tls_server: RedisServer, certificates: Certificates) -> Settings:
    return Settings(
        redis_url=SecretStr(tls_server.url),
        redis_ssl_ca=certificates.ca,
        redis_timeout_s=3.0,
    )


@pytest.fixture
def seed() -> int:
    """A random seed; it is printed, so that a failure can be repeated."""
    number = random.SystemRandom().randrange(2**32)
    print(f"seed {number}")
    return number


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Small transactions; experiments run, and the topics exist."""
    path = tmp_path / "experiments.toml"
    path.write_text(EXPERIMENTS)
    small = {"transaction_events": 40, "history_cap": 50, "experiments_path": path}
    changed = settings.model_copy(update=small)
    log.ensure_topics(changed)
    return changed
