"""Partitions added under load lose no event and count none twice, also when a process is killed or
Redis is emptied meanwhile.
"""

from __future__ import annotations

import pytest
from redis import Redis

from core.settings import Settings
from tests import oracle
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic
from tests.streams.ingest.test_partitions_added_under_load import add_partitions
from tests.support import eventually

pytestmark = [pytest.mark.apache, pytest.mark.timeout(480)]


def _reaches(redis: Redis, settings: Settings, partitions: int) -> bool:
    """Whether Redis has counted events of the last of `partitions` partitions."""
    return oracle.positions(redis, settings).get(partitions - 1, 0) > 20


def test_users_who_move_between_partitions_are_counted_exactly(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    """Two processes share the partitions; one is killed after partitions are added, and Redis is
    emptied after the last is added.
    """
    with Traffic(settings, seed):
        doomed, child = ingest(group="one"), ingest(group="one")
        eventually(lambda: _reaches(redis, settings, 4), "the first partitions are read")
        add_partitions(settings, settings.interactions_topic, 6)
        doomed.kill()
        eventually(lambda: _reaches(redis, settings, 6), "two more are read", 60.0)
        add_partitions(settings, settings.interactions_topic, 7)
        eventually(lambda: _reaches(redis, settings, 7), "and one more", 60.0)
        redis.flushall()
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)
