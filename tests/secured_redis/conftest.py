"""Redis servers with TLS, and settings for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from core.errors import ProcessFailed
from core.settings import Settings
from testing.certificates import Certificates
from testing.redis import RedisServer


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
