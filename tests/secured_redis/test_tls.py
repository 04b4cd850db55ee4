"""Eddyline speaks TLS with Redis, and says in one line why a handshake failed."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest
from pydantic import SecretStr
from redis import Redis

from core.errors import ConfigurationError, StoreError, StoreMisconfigured, StoreUnavailable
from core.settings import Settings
from store.state import connection
from store.state.servers.async_pipe import AsyncPipe
from testing.certificates import Certificates
from testing.proxy import Proxy
from testing.redis import RedisServer

SEGMENT = 1448
"""Bytes of a TCP segment on Ethernet."""


def ping(settings: Settings) -> None:
    """One round trip by each of the two clients."""
    with connection.connect(settings) as client, connection.named_errors("testing"):
        assert client.ping()

    async def round_trip() -> list[Any]:
        async with connection.connect_async(settings) as client:
            pipe = AsyncPipe(client, settings.redis_timeout_s)
            try:
                return await pipe.ask("testing", [("GET", "nothing")])
            finally:
                await pipe.drop()
                await asyncio.sleep(0.1)  # the transport of TLS closes in further turns of the loop

    assert asyncio.run(round_trip()) == [None]


@pytest.fixture
def client_certificate_required(
    tls_server: RedisServer, certificates: Certificates
) -> Iterator[None]:
    with Redis.from_url(tls_server.url, **tls_server.client_options) as admin:
        admin.config_set("tls-auth-clients", "yes")
    yield
    with Redis.from_url(
        tls_server.url,
        **tls_server.client_options,
        ssl_certfile=str(certificates.client),
        ssl_keyfile=str(certificates.client_key),
    ) as admin:
        admin.config_set("tls-auth-clients", "optional")


def test_the_server_is_trusted_by_the_authority_in_the_settings(tls_settings: Settings) -> None:
    ping(tls_settings)


def test_the_client_shows_its_certificate(
    tls_settings: Settings, certificates: Certificates, client_certificate_required: None
) -> None:
    # by TLS 1.3 the refusal comes after the handshake: the first write may meet a closed connection
    with pytest.raises(StoreError, match="REDIS_SSL_CERTIFICATE"):
        ping(tls_settings)
    files = {
        "redis_ssl_certificate": certificates.client,
        "redis_ssl_key": certificates.client_key,
    }
    ping(tls_settings.model_copy(update=files))


def test_a_certificate_of_another_authority_is_refused_with_the_setting(
    tls_settings: Settings, certificates: Certificates
) -> None:
    with pytest.raises(StoreMisconfigured, match="not trusted: set REDIS_SSL_CA"):
        ping(tls_settings.model_copy(update={"redis_ssl_ca": certificates.other_ca}))


def test_a_server_is_reached_by_another_name_than_that_of_its_certificate(
    tls_settings: Settings, tls_server: RedisServer
) -> None:
    with Proxy(tls_server.port) as proxy:
        alias = tls_settings.model_copy(
            update={"redis_url": SecretStr(f"rediss://127.1:{proxy.port}/0")}
        )
        with pytest.raises(StoreMisconfigured, match="REDIS_SSL_SERVER_NAME"):
            ping(alias)
        ping(alias.model_copy(update={"redis_ssl_server_name": "localhost"}))
        ping(alias.model_copy(update={"redis_ssl_check_hostname": False}))


def test_a_url_without_tls_for_a_tls_port_says_so(
    tls_settings: Settings, tls_server: RedisServer
) -> None:
    plain = tls_settings.model_copy(
        update={"redis_url": SecretStr(f"redis://{tls_server.address}/0")}
    )
    with pytest.raises(StoreUnavailable, match="rediss:// for TLS"):
        ping(plain)


def test_a_key_that_cannot_be_read_is_refused_at_the_start(
    tls_settings: Settings, certificates: Certificates
) -> None:
    files = {"redis_ssl_certificate": certificates.client, "redis_ssl_key": certificates.ca}
    with pytest.raises(ConfigurationError, match="REDIS_SSL_KEY"):
        connection.connect(tls_settings.model_copy(update=files))


def test_an_answer_is_read_in_time_when_the_network_splits_the_records_of_tls(
    tls_settings: Settings, tls_server: RedisServer
) -> None:
    """Its first segment ends within a record, and is read before the others arrive."""
    commands = 250
    packed = [hiredis.pack_command(("SET", f"key-{number}", "x")) for number in range(commands)]
    with Proxy(tls_server.port, SEGMENT) as proxy:
        settings = tls_settings.model_copy(
            update={"redis_url": SecretStr(f"rediss://{proxy.address}/0")}
        )
        with connection.connect(settings) as client:
            pipe = connection.Pipe(client)
            pipe.send(b"".join([b"MULTI\r\n", *packed, b"EXEC\r\n"]))
            select.select([pipe._connection._sock], [], [])
            _, replies = pipe.receive_transaction(commands)
            pipe.close()
    assert replies == [b"OK"] * commands
