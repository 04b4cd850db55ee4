"""A user who is idle for USER_IDLE_DAYS leaves Redis, and has everything again after a return."""

from __future__ import annotations

import signal
import time
import uuid

import pytest
from redis import Redis

from core.settings import Settings
from core.types import Interaction
from store.log.producer import Producer
from store.state import keys
from store.state.entities import users
from store.state.shards import Shards
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, ingest_all, rebuild, run
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic

pytestmark = pytest.mark.timeout(480)

IDLE = [f"idle:{number}" for number in range(110)]
"""More than fit two transactions."""
BUSY = IDLE[0]
"""An idle user with more events than HISTORY_CAP."""


def event(user_id: str, days_ago: float) -> Interaction:
    at = time.time() - days_ago * 86_400
    return Interaction(uuid.uuid4().hex, user_id, f"item:{uuid.uuid4().hex[:2]}", "view", at)


def produce_past(settings: Settings, seed: int) -> None:
    """Idle users, one of them deleted and returned before, duplicates, bad messages, and others."""
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, 300)
        for user_id in (*IDLE, *[BUSY] * 60):
            one = event(user_id, 30)
            producer.interaction(one)
            producer.interaction(event(user_id, 40))
            producer.interaction(one)
        producer.flush()
        producer.user(IDLE[1], None)
        producer.flush()
        time.sleep(0.01)  # the broker's time has milliseconds: the next event is later
        producer.interaction(event(IDLE[1], 30))


def expire(redis: Redis, spawn: Spawn, *kills: str) -> None:
    """Run `streams expire`, after runs that are killed; the lease of a killed one has expired."""
    for kill in kills:
        child = spawn(
            "tests.exactly_once.expire.expire_that_fails", f"die={kill}", USER_IDLE_DAYS="10"
        )
        assert child.wait(90) == -signal.SIGKILL, child.describe("should have died by SIGKILL")
        redis.delete(keys.ONLY.lease("expire"))
    run(spawn, "expire", USER_IDLE_DAYS="10")


def idle_ids(redis: Redis) -> set[str]:
    return {keys.unescape(key.decode().split(":")[1]) for key in redis.keys("user:*:idle")}


def test_idle_users_leave_and_return_and_each_event_counts_once_whatever_is_killed(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    produce_past(settings, seed)
    ingest_all(redis, settings, ingest)
    expire(redis, spawn)
    assert idle_ids(redis) == set()  # no archive: nobody leaves whom nothing could bring back
    archive(spawn)
    expire(redis, spawn, "before,2", "after,2")
    assert idle_ids(redis) == set(IDLE)
    assert not any(redis.exists(keys.ONLY.user(one), keys.ONLY.history(one)) for one in IDLE)
    oracle.assert_equal(redis, settings)

    child = ingest()
    with Producer(settings) as producer:
        for number, user_id in enumerate(IDLE[:60]):
            # the last of them return with old events, as from an import, and leave again
            producer.interaction(event(user_id, 0 if number < 40 else 20))
        producer.user(IDLE[-1], None)
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)
    assert users.read(redis, BUSY, 50).events == 1  # not restored yet
    assert redis.keys(keys.ONLY.user(IDLE[-1]) + "*") == []

    archive(spawn)
    expire(redis, spawn, "before,3", "after,3")
    oracle.assert_equal(redis, settings)
    assert idle_ids(redis) == set(IDLE[40:-1])
    busy = users.read(redis, BUSY, 50)
    assert (busy.events, len(busy.history)) == (123, 50)
    child.stop()

    rebuild(spawn, "--wipe")
    assert idle_ids(redis) == set()
    oracle.assert_equal(redis, settings)


def test_idle_users_of_every_shard_leave_and_return(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    four = settings.model_copy(update={"redis_shards": 4})
    idle = IDLE[:12]
    with Producer(settings) as producer:
        for user_id in idle:
            producer.interaction(event(user_id, 30))
    with Shards(four) as shards:
        child = ingest(REDIS_SHARDS="4")
        caught_up(shards, four, child)  # type: ignore[arg-type]
        archive(spawn)
        run(spawn, "expire", USER_IDLE_DAYS="10", REDIS_SHARDS="4")
        gone = {keys.of(shards.of_user(one)).user_idle(one).encode() for one in idle}
        assert set(redis.keys("*:idle")) == gone
        oracle.assert_equal(shards, four)
        with Producer(settings) as producer:
            for user_id in idle:
                producer.interaction(event(user_id, 0))
        caught_up(shards, four, child)  # type: ignore[arg-type]
        archive(spawn)
        run(spawn, "expire", USER_IDLE_DAYS="10", REDIS_SHARDS="4")
        assert redis.keys("*:idle") == []
        oracle.assert_equal(shards, four)
        assert users.read(shards.of_user(idle[0]), idle[0], 50).events == 2
