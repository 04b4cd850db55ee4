"""The parts of a live worker for every test that needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from core.settings import Settings
from store.state.apply import deletions
from tests.live.parts import Worker


@pytest.fixture
def worker(settings: Settings, redis: Redis) -> Iterator[Worker]:
    """A worker that has folded nothing in yet."""
    deletions.mark_ready(redis)
    worker = Worker(settings)
    yield worker
    worker.store.close()
