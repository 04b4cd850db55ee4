"""Starts a Redis that a test can make refuse commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from store.state.apply import deletions
from testing.redis import RedisServer
from tests import redis_refusals


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(
        tmp_path_factory.mktemp("refusals"), options=redis_refusals.OPTIONS
    ) as started:
        yield started


@pytest.fixture
def refusing_redis(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        client.flushall()
        deletions.mark_ready(client)
        yield client


@pytest.fixture(params=["default", "hardened"])
def settings(request: pytest.FixtureRequest, server: RedisServer) -> Settings:
    """As the default user, and as one that may run nothing dangerous: neither INFO nor CONFIG."""
    url = server.url
    if request.param == "hardened":
        url = f"redis://hardened:a-password@{server.address}/0"
        rules = ["reset", "on", ">a-password", "~*", "&*", "+@all", "-@dangerous"]
        with Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "hardened", *rules)
    return Settings(
        redis_url=SecretStr(url), kafka_bootstrap_servers="127.0.0.1:9", redis_timeout_s=1.0
    )
