"""Reads of what is spread over four shards: everybody is found, and sums are those of all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis import Redis

from api.live_view.trending import Trending
from core.codec import encode_json
from core.settings import Settings
from core.types import User
from store.log.topics.ids import TopicIds
from store.state import keys
from store.state.apply import deletions
from store.state.entities import experiments, popularity, trending, users
from store.state.entities.arrivals import Arrivals
from store.state.entities.entries import EntryReader
from store.state.entities.experiments import Exposures
from store.state.entities.histories import item_sets, with_events
from store.state.entities.reader import UserReader
from store.state.shards import AsyncShards, Shards, users_by_shard
from tests.store.state.entities.experiment import CONTROL, HALF, HASHER, RUNNING, fail_on_loss

NAMES = ("developer_startup", "unlabelled")
NOW = 1_800_000_000.0
PEOPLE = [f"user-{number}" for number in range(40)]


@pytest.fixture
def sharded(settings: Settings) -> Settings:
    return settings.model_copy(update={"redis_shards": 4})


@pytest.fixture
def shards(sharded: Settings, redis: Redis) -> Iterator[Shards]:
    """Four shards of an empty server; PEOPLE have profiles and as many events as their number."""
    with Shards(sharded) as shards:
        assert set(users_by_shard(PEOPLE, 4)) == {0, 1, 2, 3}
        for number, name in enumerate(PEOPLE):
            client = shards.of_user(name)
            mine = keys.of(client)
            client.set(mine.profile(name), encode_json(User(user_id=name, roles=["developer"])))
            if number:
                client.hset(mine.user(name), mapping={"events": number, "ev:like": number})
                client.rpush(mine.history(name), f"1700000000 like item-{number}")
        yield shards


def test_every_user_is_read_with_events_history_and_profile(
    sharded: Settings, shards: Shards
) -> None:
    async def read() -> None:
        clients = AsyncShards(sharded)
        reader = UserReader(clients, 50, 5.0)
        states = await asyncio.gather(*(reader.read(name) for name in PEOPLE))
        assert [state.events for state in states] == list(range(40))
        assert [state.history[0].item_id for state in states[1:]] == [
            f"item-{number}" for number in range(1, 40)
        ]
        entries = EntryReader(clients, 5.0)
        for name, state in zip(PEOPLE, states, strict=True):
            assert (
                state.profile == await entries.user(name) == User(user_id=name, roles=["developer"])
            )
        await reader.close()
        await entries.close()
        await clients.aclose()

    asyncio.run(read())
    assert [user.user_id for user in users.profiles(shards)] != PEOPLE, "shard by shard"
    assert sorted(user.user_id for user in users.profiles(shards)) == sorted(PEOPLE)


def test_lists_of_users_keep_their_order(shards: Shards) -> None:
    assert with_events(shards, [*PEOPLE, "nobody"]) == PEOPLE[1:]
    assert item_sets(shards, PEOPLE, 50) == [
        {f"item-{number}"} if number else set() for number in range(40)
    ]


def test_a_reader_waits_for_the_position_in_the_shard_of_its_partition(
    sharded: Settings, shards: Shards
) -> None:
    topic = sharded.interactions_topic
    for partition in range(8):
        client = shards.of_partition(topic, partition)
        client.hset(keys.of(client).position(topic, partition), "position", partition)

    async def wait() -> None:
        clients = AsyncShards(sharded)
        arrivals = Arrivals(clients, 5.0, TopicIds(sharded, [topic]))
        for partition in range(1, 8):
            assert await arrivals.wait(topic, partition, partition - 1, 5.0)
        assert not any(
            await asyncio.gather(
                *(arrivals.wait(topic, partition, partition, 0.05) for partition in range(8))
            )
        )
        await arrivals.close()
        await clients.aclose()

    asyncio.run(wait())


def test_popularity_is_the_sum_of_all_shards(sharded: Settings, shards: Shards) -> None:
    for number, client in enumerate(shards):
        client.zadd(keys.of(client).popular("unlabelled"), {"a": 2.0, "b": 1.0, f"c{number}": 3.0})
    client = shards[3]
    client.zadd(keys.of(client).popular("developer_startup"), {"a": 1.0})
    tops = [popularity.top(client, NAMES, 2) for client in shards]
    assert popularity.merged(tops, 3)["unlabelled"] == [("a", 8.0), ("c3", 3.0), ("c2", 3.0)]
    assert popularity.merged(tops)["developer_startup"] == [("a", 1.0)]
    assert popularity.shares_of_item(shards, NAMES, "b") == {"unlabelled": 0.5}
    assert popularity.shares_of_item(shards, NAMES, "a") == {
        "unlabelled": 1.0,
        "developer_startup": 1.0,
    }


def test_an_item_with_the_minimum_weight_in_all_shards_together_stays(
    sharded: Settings, shards: Shards
) -> None:
    minimum = sharded.popularity_min_weight / popularity.decay_factor(sharded, NOW)
    shares = {"stays": minimum / 4, "goes": minimum / 5}
    for client in shards:
        client.zadd(keys.of(client).popular("unlabelled"), shares)
    removed = [popularity.remove_below(client, sharded, NAMES, NOW) for client in shards]
    assert removed == [1, 1, 1, 1]
    assert popularity.merged([popularity.top(client, NAMES) for client in shards]) == {
        "developer_startup": [],
        "unlabelled": [("stays", minimum)],
    }
    for client in shards:
        lacks = client.hget(keys.of(client).popularity_removed, "unlabelled")
        assert float(lacks or 0) == pytest.approx(minimum / 5)


def test_what_is_trending_is_the_sum_of_all_shards(shards: Shards) -> None:
    for number, client in enumerate(shards):
        for key in trending.buckets("unlabelled", NOW, 2, NOW):
            client.zadd(keys.of(client).prefix + key, {"a": 1.0, f"b{number}": 2.0})
    reader = Trending(NAMES)
    due = reader.due(NOW)
    reader.update([trending.read(client, due) for client in shards], NOW)
    assert set(reader.windows) == {"hour", "day", "week"}
    for by_name in reader.windows.values():
        assert by_name["unlabelled"][:2] == [("a", 4.0), ("b0", 2.0)]
        assert len(by_name["unlabelled"]) == 5
    assert trending.of_item(shards, NAMES, "a", NOW)["day"] == {"unlabelled": 4.0}
    series = trending.series_of_item(shards, NAMES, "a", NOW)
    assert sum(series["hour"]["unlabelled"].weights) == 4.0


def test_a_bucket_that_one_shard_did_not_answer_in_full_is_read_later(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trending, "REFRESH_ITEMS", 4)
    reader = Trending(NAMES)
    for key in trending.buckets("unlabelled", NOW, 2, NOW):
        client = shards[2]
        client.zadd(keys.of(client).prefix + key, {"a": 1.0, "b": 2.0})
    at, known = NOW, set[str]()
    while known != {"hour", "day", "week"}:
        due = reader.due(at)
        reader.update([trending.read(client, due) for client in shards], at)
        known = set(reader.windows)
        for by_name in reader.windows.values():
            assert by_name["unlabelled"] == [("b", 2.0), ("a", 1.0)], "never a part of a sum"
        at += 5.0
        assert at < NOW + 1000


def test_exposures_are_in_the_shard_of_their_user(shards: Shards) -> None:
    for client in shards:
        deletions.mark_ready(client)
    exposures = Exposures(RUNNING, 1000, fail_on_loss, HASHER, 4)
    for name in PEOPLE:
        exposures.add(CONTROL, name)
        exposures.add(CONTROL, name)
    exposures.add(HALF, PEOPLE[0])
    exposures.write(shards[1])
    assert experiments.read(shards, CONTROL.id).exposed == {}, "not before the definition"
    for client in shards:
        exposures.write(client)
    assert experiments.read(shards, CONTROL.id).exposed == dict.fromkeys(PEOPLE, 2)
    assert experiments.read(shards, HALF.id).exposed == {PEOPLE[0]: 1}
    assert list(experiments.definitions(shards.first)) == [CONTROL.tag]
    for number, client in enumerate(shards):
        members = client.zrange(keys.of(client).experiment_exposed(CONTROL.id), 0, -1)
        assert {member.decode() for member in members} == set(users_by_shard(PEOPLE, 4)[number])
        assert client.exists(keys.of(client).experiments) == (number == 0)
