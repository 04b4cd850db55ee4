"""Clients of every kind find the primary by the sentinels, over TLS, and say why they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.errors import StoreMisconfigured, StoreUnavailable
from core.settings import Settings
from testing.certificates import Certificates
from testing.ports import HOST, free_port
from testing.redis import SERVICE, RedisServer, SentinelGroup
from tests.secured_redis.test_tls import ping


@pytest.fixture(scope="module")
def group(
    tls_server: RedisServer, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SentinelGroup]:
    """Without replicas; `tls_server` skips where its program has no TLS."""
    directory = tmp_path_factory.mktemp("group")
    with SentinelGroup(directory, 0, certificates, binary=tls_server.binary) as servers:
        yield servers


@pytest.fixture
def settings_of(group: SentinelGroup, certificates: Certificates) -> Settings:
    return Settings(redis_url=SecretStr(group.url), redis_ssl_ca=certificates.ca)


def test_the_primary_is_found_over_tls(settings_of: Settings) -> None:
    ping(settings_of)


def test_a_sentinel_that_is_down_is_skipped(settings_of: Settings, group: SentinelGroup) -> None:
    hosts = f"{HOST}:{free_port()},{group.sentinels[0].address}"
    url = SecretStr(f"rediss+sentinel://{hosts}/{SERVICE}")
    ping(settings_of.model_copy(update={"redis_url": url}))


def test_an_unknown_service_is_named(settings_of: Settings, group: SentinelGroup) -> None:
    url = SecretStr(group.url.replace(f"/{SERVICE}/", "/another/"))
    with pytest.raises(StoreUnavailable, match="no primary that is up of 'another'"):
        ping(settings_of.model_copy(update={"redis_url": url}))


def test_a_certificate_of_a_sentinel_that_is_not_trusted_is_named(
    settings_of: Settings, certificates: Certificates
) -> None:
    with pytest.raises(StoreMisconfigured, match="REDIS_SSL_CA"):
        ping(settings_of.model_copy(update={"redis_ssl_ca": certificates.other_ca}))


def test_the_sentinels_have_a_login_of_their_own(tmp_path: Path, program: Path) -> None:
    directory = tmp_path / "group"
    with SentinelGroup(directory, 0, password="of-the-sentinels", binary=program) as group:
        settings = Settings(redis_url=SecretStr(group.url))
        with pytest.raises(StoreMisconfigured, match="REDIS_SENTINEL_PASSWORD"):
            ping(settings)
        login = {"redis_sentinel_password": SecretStr("of-the-sentinels")}
        ping(settings.model_copy(update=login))
