from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from redis import Redis

from core.settings import Settings
from tests.api import world


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Log lines from `warning` up, as a failed test shows them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture
def api(settings: Settings, redis: Redis) -> Iterator[world.Client]:
    """An API with the world's bundle and three users, in this process; no broker unless the test
    asks for one.
    """
    world.publish(settings)
    world.remember(redis, "cold", "pay", interests=["health"])
    world.remember(redis, "warm", "pay", "bank", events=7)
    world.remember(redis, "hot", "pay", "bank", events=25)
    with world.serving(settings) as client:
        yield client
