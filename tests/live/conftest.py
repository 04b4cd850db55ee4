"""The parts of a live worker for every test that needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from core.settings import Settings
from tests.live.parts import Worker


@pytest.fixture
def worker(request: pytest.FixtureRequest, settings: Settings, redis: Redis) -> Iterator[Worker]:
    """A worker that has folded nothing in yet; with SHARDED, of that number of shards."""
    worker = Worker(settings, redis_shards=getattr(request, "param", 1))
    yield worker
    worker.close()
