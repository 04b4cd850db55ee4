"""A user leaves Redis or is restored as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from core.deletions import IdHasher
from core.errors import StoreError
from core.settings import Settings
from core.types import Interaction, LiveVector
from store.state import connection, keys
from store.state.apply import deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import Event, KnownDeletions, OffsetRange
from store.state.apply.planner import Planner
from store.state.entities import idle_users
from store.state.entities.idle_users import Counted
from store.state.entities.vectors import LiveStore
from store.state.lease import Lease

USER, IDLE, HISTORY = keys.ONLY.user("42"), keys.ONLY.user_idle("42"), keys.ONLY.history("42")


@pytest.fixture
def user(redis: Redis) -> str:
    """A user with two events."""
    deletions.mark_ready(redis)
    redis.hset(USER, mapping={"events": 2, "ev:view": 2, "first_seen": 5})
    redis.rpush(HISTORY, "5 view startup-1", "6 view startup-2")
    redis.hset(keys.ONLY.user_als("42"), mapping={"as_of": 2})
    return "42"


def count_event(redis: Redis) -> None:
    redis.hincrby(USER, "events", 1)


def delete_another_user(redis: Redis) -> None:
    redis.hset(keys.ONLY.deletions, "users", deletions.token())


def begin_wipe(redis: Redis) -> None:
    redis.set(keys.ONLY.wipe, "1")


def state(redis: Redis) -> list[Any]:
    return [redis.hgetall(USER), redis.hgetall(IDLE), redis.lrange(HISTORY, 0, -1)]


@pytest.mark.parametrize("change", [count_event, delete_another_user, begin_wipe])
def test_a_user_who_changes_meanwhile_is_not_restored(
    redis: Redis, user: str, monkeypatch: pytest.MonkeyPatch, change: Callable[[Redis], None]
) -> None:
    redis.hset(IDLE, mapping={"events": 1, "ev:view": 1, "first_seen": 4})
    execute, after_change = connection.execute, []

    def change_first(pipe: Any) -> bool:
        change(redis)
        after_change.append(state(redis))
        return execute(pipe)

    monkeypatch.setattr(connection, "execute", change_first)
    assert not idle_users.restore(redis, user, 1, ["4 view startup-0"], 50)
    assert state(redis) == after_change.pop()


@pytest.mark.parametrize("counted", [Counted(1, 0), Counted(2, 1)])
def test_a_user_with_other_events_than_were_checked_does_not_leave(
    redis: Redis, user: str, counted: Counted
) -> None:
    before = state(redis)
    assert idle_users.evict(redis, {user: counted}) == 0
    assert state(redis) == before


def test_users_leave_a_redis_that_is_full(redis: Redis, user: str) -> None:
    redis.config_set("maxmemory", 1)
    try:
        with Lease(redis, "expire", 30):
            assert idle_users.evict(redis, {user: Counted(2, 0)}) == 1
    finally:
        redis.config_set("maxmemory", 0)
    assert state(redis) == [{}, {b"events": b"2", b"ev:view": b"2", b"first_seen": b"5"}, []]
    assert not redis.exists(keys.ONLY.user_als("42"))


def test_nobody_leaves_or_is_restored_while_redis_is_emptied_or_wiped(
    redis: Redis, user: str
) -> None:
    begin_wipe(redis)
    with pytest.raises(StoreError, match="a rebuild that was emptying Redis was interrupted"):
        idle_users.evict(redis, {user: Counted(2, 0)})
    redis.delete(keys.ONLY.wipe, keys.ONLY.deletions)
    with pytest.raises(StoreError, match="deletions in Redis are not complete"):
        idle_users.evict(redis, {user: Counted(2, 0)})


def test_ingest_and_live_workers_notice_that_a_user_left(
    settings: Settings, redis: Redis, user: str
) -> None:
    planner = Planner(settings.use_cases)
    client = connection.connect(settings)
    applier = Applier(client, planner, 50, IdHasher(settings.deletion_salt))

    def apply(offset: int) -> None:
        event = Event(Interaction(f"e{offset}", user, "startup-1", "view", 100.0 + offset), 1.0)
        known = KnownDeletions(applier.deletions_version, {})
        applier.apply(planner.plan(OffsetRange("t", 0, offset, offset + 1), [event], known))

    store = LiveStore(client, 50, 0)
    apply(0)
    apply(1)
    store.read([user])
    assert idle_users.evict(redis, {user: Counted(4, 0)}) == 1
    # a vector of the former history would match the same number of events after the return
    assert not store.write({user: LiveVector("v", "m", 4, b"")})
    apply(2)
    assert redis.hget(USER, "first_seen") == b"102"
    store.close()
    applier.close()
