"""Checks timeouts of the shared connection of an event loop."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from pydantic import SecretStr

from core.errors import StoreUnavailable
from core.settings import Settings
from store.state.connection import connect_async
from store.state.servers import client_connections
from store.state.servers.async_pipe import AsyncPipe
from testing.proxy import Proxy
from testing.redis import RedisServer

TIMEOUT_S = 0.25


@pytest.fixture
def settings_of(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=SecretStr(redis_server.url))


def test_a_blocked_event_loop_is_not_a_timeout_of_redis(
    settings_of: Settings,
) -> None:
    async def blocked() -> None:
        client = connect_async(settings_of, TIMEOUT_S)
        pipe = AsyncPipe(client, TIMEOUT_S)
        assert await pipe.ask("testing", [("PING",)]) == [b"PONG"]
        for _ in range(3):
            asking = asyncio.create_task(pipe.ask("testing", [("PING",)]))
            await asyncio.sleep(0)
            time.sleep(4 * TIMEOUT_S)  # noqa: ASYNC251 - the event loop is blocked on purpose
            assert await asking == [b"PONG"]
        await pipe.drop()
        await client.aclose()

    asyncio.run(blocked())


def test_reads_follow_a_host_name_that_moves_while_the_former_server_still_answers(
    redis_server: RedisServer, own_redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_connections, "MAX_AGE_S", 0.05)

    async def moved() -> None:
        with Proxy(redis_server.port) as name:
            client = connect_async(
                Settings(redis_url=SecretStr(f"redis://{name.address}/0")), TIMEOUT_S
            )
            pipe = AsyncPipe(client, 10.0)

            async def port() -> int:
                (info,) = await pipe.ask("testing", [("INFO", "server")])
                return int(info.split(b"tcp_port:")[1].split()[0])

            assert await port() == redis_server.port
            name.point_to(own_redis_server.port)
            async with asyncio.timeout(30):
                while await port() != own_redis_server.port:
                    pass
            await pipe.drop()
            await client.aclose()

    asyncio.run(moved())


def test_a_redis_without_an_answer_is_unavailable_after_the_timeout(
    own_redis_server: RedisServer,
) -> None:
    async def stopped() -> None:
        settings = Settings(redis_url=SecretStr(own_redis_server.url))
        client = connect_async(settings, TIMEOUT_S)
        pipe = AsyncPipe(client, TIMEOUT_S)
        assert await pipe.ask("testing", [("PING",)]) == [b"PONG"]
        own_redis_server.child.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await pipe.ask("testing", [("PING",)])
            assert time.monotonic() - began >= TIMEOUT_S
        finally:
            own_redis_server.child.signal(signal.SIGCONT)
        assert await pipe.ask("testing", [("PING",)]) == [b"PONG"]
        await pipe.drop()
        await client.aclose()

    asyncio.run(stopped())
