"""Acquires leases in a real Redis: one holder at a time, and expiry when the holder dies."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from core.errors import LeaseLost, LeaseTaken
from core.settings import Settings
from store.state import connection
from store.state.lease import Lease
from tests.support import eventually


def test_a_second_process_gets_the_name_of_the_holder(settings: Settings, redis: Redis) -> None:
    client = connection.connect(settings)
    with (
        Lease(client, "retrain", 30) as first,
        pytest.raises(LeaseTaken, match=first.holder),
        Lease(client, "retrain", 30),
    ):
        pass
    with Lease(client, "retrain", 30):
        pass


def test_a_holder_renews_its_lease(settings: Settings, redis: Redis) -> None:
    client = connection.connect(settings)
    seconds = 2.0
    with Lease(client, "retrain", seconds) as lease:
        began, left_ms = time.monotonic(), [int(redis.pttl("lease:retrain"))]
        while time.monotonic() - began < 1.5 * seconds:
            left_ms.append(int(redis.pttl("lease:retrain")))
            time.sleep(0.01)
        assert min(left_ms) > 0
        lease.check()


def test_the_lease_of_a_dead_holder_expires_and_its_next_check_fails(
    settings: Settings, redis: Redis
) -> None:
    client = connection.connect(settings)
    dead = Lease(client, "retrain", 0.2)
    redis.set("lease:retrain", dead.holder, px=200)  # as a process that was killed left it
    eventually(lambda: not redis.exists("lease:retrain"), "the lease ran out")
    with Lease(client, "retrain", 30), pytest.raises(LeaseLost):
        dead.check()
