"""Readers of users and positions go on while a slot of a Redis Cluster moves, and while a node of
other users does not answer.
"""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from core.codec import encode_json
from core.errors import StoreUnavailable
from core.settings import Settings
from core.types import User
from store.log.topics.ids import TopicIds
from store.state import keys
from store.state.entities.arrivals import Arrivals
from store.state.entities.entries import EntryReader
from store.state.entities.reader import UserReader
from store.state.servers import client_connections
from store.state.servers.cluster import slot_of
from store.state.shards import AsyncShards, Shards, shard_of_user
from testing.redis_cluster import ClusterNode, RedisCluster
from tests.api.world import Client, publish, remember, serving, store_items
from tests.engines.world import ITEMS
from tests.support import eventually

SHARD = 2
SLOT = slot_of(str(SHARD))
PEOPLE = [f"user-{number}" for number in range(200)]
TIMEOUT_S = 5.0


@pytest.fixture(autouse=True)
def _long_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test passes because a connection is made again by its age."""
    monkeypatch.setattr(client_connections, "MAX_AGE_S", 3600.0)


@pytest.fixture
def people(cluster_settings: Settings) -> list[str]:
    """PEOPLE have as many events as their number, and histories and profiles."""
    with Shards(cluster_settings) as shards:
        for number, name in enumerate(PEOPLE):
            client = shards.of_user(name)
            mine = keys.of(client)
            client.hset(mine.user(name), "events", str(number + 1))
            client.rpush(mine.history(name), f"1700000000 like item-{number}")
            client.set(mine.profile(name), encode_json(User(user_id=name)))
    return PEOPLE


def other_primary(cluster: RedisCluster) -> ClusterNode:
    """A primary that does not serve SLOT."""
    source = cluster.primary_of(SLOT)
    return next(node for node in cluster.primaries() if node is not source)


@pytest.mark.usefixtures("people")
def test_no_read_fails_while_a_slot_moves(
    cluster: RedisCluster, cluster_settings: Settings
) -> None:
    topic = cluster_settings.interactions_topic

    async def read_all(reader: UserReader, entries: EntryReader) -> None:
        profiles = await asyncio.gather(*(entries.user(name) for name in PEOPLE))
        assert profiles == [User(user_id=name) for name in PEOPLE]
        states = await asyncio.gather(*(reader.read(name) for name in PEOPLE))
        assert [state.events for state in states] == list(range(1, 201))
        assert [len(state.history) for state in states] == [1] * 200

    async def read_while_moving() -> None:
        shards = AsyncShards(cluster_settings)
        mine = shards[SHARD]
        await mine.hset(keys.of(mine).position(topic, SHARD), "position", "8")
        reader = UserReader(shards, 50, TIMEOUT_S)
        entries = EntryReader(shards, TIMEOUT_S)
        arrivals = Arrivals(shards, TIMEOUT_S, TopicIds(cluster_settings, [topic]))
        await read_all(reader, entries)
        to = other_primary(cluster)
        await asyncio.to_thread(cluster.begin_move, SLOT, to)
        while await asyncio.to_thread(cluster.move_keys, SLOT, to, 10):
            await read_all(reader, entries)
            assert await arrivals.wait(topic, SHARD, 7, TIMEOUT_S)
        moving = asyncio.create_task(asyncio.to_thread(cluster.end_move, SLOT, to))
        while not moving.done():
            await read_all(reader, entries)
        await read_all(reader, entries)
        assert await arrivals.wait(topic, SHARD, 7, TIMEOUT_S)
        await moving
        await reader.close()
        await entries.close()
        await arrivals.close()
        await shards.aclose()

    asyncio.run(read_while_moving())


@pytest.mark.usefixtures("people")
def test_a_node_that_hangs_fails_only_the_reads_of_its_users(
    cluster: RedisCluster, cluster_settings: Settings
) -> None:
    node = cluster.primary_of(SLOT)
    hanging = {shard for shard in range(4) if cluster.primary_of(slot_of(str(shard))) is node}
    assert len(hanging) < 4

    async def read() -> list[object]:
        shards = AsyncShards(cluster_settings)
        reader = UserReader(shards, 50, 0.5)
        await asyncio.gather(*(reader.read(name) for name in PEOPLE))
        node.pause()
        try:
            results: list[object] = await asyncio.gather(
                *(reader.read(name) for name in PEOPLE), return_exceptions=True
            )
        finally:
            node.resume()
        await reader.close()
        await shards.aclose()
        return results

    for name, result in zip(PEOPLE, asyncio.run(read()), strict=True):
        assert isinstance(result, StoreUnavailable) == (shard_of_user(name, 4) in hanging)
    cluster.await_ready()


def test_an_api_answers_from_a_shard_that_moves(
    cluster: RedisCluster, cluster_settings: Settings, settings: Settings
) -> None:
    """Also where it has what exists once, as the catalogue."""
    slot = slot_of("0")
    changed = {"redis_url": cluster_settings.redis_url, "redis_shards": 4, "topic_partitions": 4}
    clustered = settings.model_copy(update=changed)
    names = PEOPLE[:30]
    with Shards(clustered) as shards:
        assert any(shards.of_user(name) is shards.first for name in names)
        for name in names:
            remember(shards.of_user(name), name, "pay", "bank")
        store_items(shards.first, *ITEMS)
    publish(clustered)

    def check(api: Client) -> None:
        for name in names:
            assert api.get(f"/api/users/{name}").json()["interaction_count"] == 2
        ready = api.get("/health/ready").json()
        assert {gap["part"] for gap in ready["missing"]} <= {"kafka"}
        assert ready["catalogue_items"] == len(ITEMS)

    to = next(node for node in cluster.primaries() if node is not cluster.primary_of(slot))
    with serving(clustered, api_redis_timeout_s=TIMEOUT_S) as api:
        eventually(lambda: not api.app.state.service.health.failure("redis"), "Redis answers")
        check(api)
        cluster.begin_move(slot, to)
        while cluster.move_keys(slot, to, 10):
            check(api)
        cluster.end_move(slot, to)
        check(api)
        with Shards(clustered) as shards:
            store_items(shards.first, msgspec.structs.replace(ITEMS[0], title="Moved"))
        path = f"/api/items/{ITEMS[0].item_id}"
        eventually(lambda: api.get(path).json()["item"]["title"] == "Moved", "a later change")
