"""One holder at a time, and a dead holder's lease is free after its time."""

from __future__ import annotations

import pytest
from redis import Redis

from core.errors import LeaseLost, LeaseTaken
from core.settings import Settings
from store.state import connection
from store.state.lease import Lease
from tests.support import eventually


def test_a_second_holder_is_told_who_has_it(settings: Settings, redis: Redis) -> None:
    client = connection.connect(settings)
    with (
        Lease(client, "retrain", 30) as first,
        pytest.raises(LeaseTaken, match=first.holder),
        Lease(client, "retrain", 30),
    ):
        pass
    with Lease(client, "retrain", 30):
        pass


def test_a_living_holder_keeps_it_past_its_time(settings: Settings, redis: Redis) -> None:
    client = connection.connect(settings)
    with Lease(client, "retrain", 0.3) as lease:
        low: list[int] = []
        eventually(
            lambda: low.append(int(redis.pttl("lease:retrain"))) or len(low) > 40, "some renewals"
        )
        assert min(low) > 0
        lease.check()


def test_a_dead_holders_lease_frees_itself_and_the_dead_one_notices(
    settings: Settings, redis: Redis
) -> None:
    client = connection.connect(settings)
    dead = Lease(client, "retrain", 0.2)
    redis.set("lease:retrain", dead.holder, px=200)  # as a process that was killed left it
    eventually(lambda: not redis.exists("lease:retrain"), "the lease ran out")
    with Lease(client, "retrain", 30), pytest.raises(LeaseLost):
        dead.check()
