"""Redis servers with TLS, and settings for these and for tests that run processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.errors import ProcessFailed
from core.settings import Settings
from store.log import client as log
from testing.certificates import Certificates
from testing.redis import RedisServer
from tests.exactly_once.conftest import EXPERIMENTS


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("redis-certificates"))


@pytest.fixture(scope="session")
def tls_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis-tls"), certificates=certificates)
    try:
        server.start()
    except ProcessFailed as error:
        if "TLS support" in str(error):
            pytest.skip("the valkey-server of the wheel has no TLS: needs redis-server on PATH")
        raise
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
