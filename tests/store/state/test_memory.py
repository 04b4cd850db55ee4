"""An operator sees what takes the memory of Redis, and when it will be full."""

from __future__ import annotations

import json
import time

import pytest
from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from store.state import keys
from store.state.entities.users import history_line
from store.state.inspection import memory, overview
from store.state.shards import Shards
from testing.redis import RedisServer
from tests.conftest import Spawn


def add_user(redis: Redis, user_id: str, days_ago: float, events: int) -> None:
    """A user whose events all happened so long ago."""
    at = time.time() - days_ago * 86_400
    redis.hset(keys.ONLY.user(user_id), mapping={"events": events, "first_seen": int(at)})
    redis.rpush(
        keys.ONLY.history(user_id),
        *[history_line(at, "view", None, f"startup-{number}") for number in range(events)],
    )


def bytes_of(redis: Redis, key: str) -> int:
    """MEMORY USAGE of a key that exists."""
    return redis.memory_usage(key) or 0


def test_the_bytes_of_each_kind_of_key_add_up_to_the_memory_of_the_data(redis: Redis) -> None:
    before = redis.info("memory")["used_memory"]
    for number in range(2000):
        add_user(redis, f"user:{number}", 1, 40)
    redis.zadd("popular:unlabelled", {f"startup-{number}": 1.0 for number in range(1000)})
    measured = memory.measure([redis], 500, 7)
    kinds = {usage.kind: usage for usage in measured.kinds}
    assert {kind: usage.keys for kind, usage in kinds.items()} == {
        "user": 2000,
        "user history": 2000,
        "popular": 1,
    }
    total = sum(usage.bytes for usage in measured.kinds)
    assert total == pytest.approx(measured.used - before, rel=0.25)
    assert measured.bytes_per_user == pytest.approx(
        kinds["user"].bytes_each + kinds["user history"].bytes_each
    )


def test_growth_counts_new_users_whole_and_of_others_the_new_lines_of_a_history_with_room(
    redis: Redis,
) -> None:
    add_user(redis, "new", 1, 40)
    add_user(redis, "old", 30, 40)
    new = bytes_of(redis, keys.ONLY.user("new")) + bytes_of(redis, keys.ONLY.history("new"))
    assert memory.measure([redis], 500, 7).growth_per_day == pytest.approx(new / 7)
    line = history_line(time.time(), "view", None, "startup-1")
    redis.rpush(keys.ONLY.history("old"), *[line] * 40)
    half = bytes_of(redis, keys.ONLY.history("old")) / 2
    assert memory.measure([redis], 500, 7).growth_per_day == pytest.approx((new + half) / 7)
    # a full history loses a line for each new one
    assert memory.measure([redis], 80, 7).growth_per_day == pytest.approx(new / 7)


def test_the_command_says_in_how_many_days_redis_is_full(
    settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    for number in range(50):
        add_user(redis, f"user-{number}", 1, 40)
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 50_000_000)
    try:
        child = spawn("streams", "inspect", "memory", "--json")
        assert child.wait(60) == 0, child.describe("failed")
        view = json.loads(child.log.read_text())
    finally:
        redis.config_set("maxmemory", 0)
    assert view["users"] == 50
    left = (view["maxmemory_bytes"] - view["used_bytes"]) / view["growth_bytes_per_day"]
    assert view["days_until_maxmemory"] == pytest.approx(left, rel=0.01)
    assert memory.measure([redis], 500, 7).days_left is None  # no limit, no date


def test_an_estimate_from_a_sample_comes_close_to_the_measurement(redis: Redis) -> None:
    for number in range(3000):
        add_user(redis, f"user:{number}", 1, 5)
    measured, estimated = memory.measure([redis], 500, 7), memory.estimate([redis], 500, 7)
    assert estimated.users == pytest.approx(measured.users, rel=0.2)
    assert estimated.bytes_per_user == pytest.approx(measured.bytes_per_user, rel=0.3)
    assert estimated.growth_per_day == pytest.approx(measured.growth_per_day, rel=0.3)


def test_an_estimate_of_few_keys_is_the_measurement(redis: Redis) -> None:
    add_user(redis, "one", 1, 5)
    assert memory.estimate([redis], 500, 7).kinds == memory.measure([redis], 500, 7).kinds


def test_a_user_who_may_not_run_info_sees_the_rest(
    redis: Redis, settings: Settings, redis_server: RedisServer
) -> None:
    used, limit = memory.used_and_limit([redis])
    assert used > 0
    assert limit == 0
    seen = overview.read(Shards(settings), [("events", 0)]).memory
    assert seen is not None
    assert seen == pytest.approx((used, 0), rel=0.5)  # a connection takes some
    redis.acl_setuser(
        "watcher", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-info"]
    )
    try:
        url = SecretStr(redis_server.url.replace("://", "://watcher:any@"))
        with Shards(settings.model_copy(update={"redis_url": url})) as watcher:
            assert memory.used_and_limit(watcher) == (0, 0)
            assert overview.read(watcher, [("events", 0)]) == overview.Overview(
                [overview.Progress("events", 0, 0, None)], None, [], None, None
            )
    finally:
        redis.acl_deluser("watcher")


def test_what_several_shards_hold_is_added_up(redis: Redis, settings: Settings) -> None:
    with Shards(settings.model_copy(update={"redis_shards": 4})) as shards:
        for number in range(12):
            client, at = shards.of_user(f"user-{number}"), int(time.time()) - 60
            names = keys.of(client)
            client.hset(names.user(f"user-{number}"), mapping={"events": 1, "first_seen": at})
            client.rpush(names.history(f"user-{number}"), f"{at} view a")
        for number in range(4):
            fields = {"position": number + 1, "latest_at": "5.5"}
            client = shards.of_partition("events", number)
            client.hset(keys.of(client).position("events", number), mapping=fields)
        shards.first.zadd(keys.of(shards.first).running, {"host:1": time.time() + 60})
        measured = memory.measure(shards, 500, 7)
        counts = {usage.kind: usage.keys for usage in measured.kinds}
        assert counts == {"user": 12, "user history": 12, "ingest": 4, "running": 1}
        sizes = [bytes_of(redis, key.decode()) for key in redis.scan_iter("*") if b":user:" in key]
        assert measured.growth_per_day == pytest.approx(sum(sizes) / 7)
        seen = overview.read(shards, [("events", number) for number in range(4)])
        assert [part.position for part in seen.partitions] == [1, 2, 3, 4]
        assert seen.ingest == ["host:1"]
        assert memory.fullest([(90, 100), (500, 0), (200, 1000)]) == (90, 100)
