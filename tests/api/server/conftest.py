from __future__ import annotations

from collections.abc import Iterator

import pytest

from testing.redis import RedisServer
from tests.api.server.limited_server import BY_ADDRESS, CONNECTIONS, Server, limits, start
from tests.api.world import publish


@pytest.fixture(scope="module")
def server(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process with limits that a test can reach; the tests of this module share it."""
    settings = limits(
        redis_server,
        tmp_path_factory,
        api_max_head_bytes=4096,
        api_max_headers=20,
        api_head_timeout_s=1,
        api_idle_timeout_s=2,
        api_write_timeout_s=5,
        api_timeout_s=2,
        api_after_s=1.7,
        api_max_connections=CONNECTIONS,
        api_max_connections_per_address=BY_ADDRESS,
        api_max_body_bytes=100_000,
    )
    publish(settings)
    running = start(settings)
    yield running
    running.child.stop()
    assert "Traceback" not in running.child.log.read_text()
