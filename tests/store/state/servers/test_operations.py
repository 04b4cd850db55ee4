"""Operators wipe, inspect and judge the state in a Redis Cluster, also while a slot moves."""

from __future__ import annotations

import pytest

from core.errors import StoreUnavailable
from core.settings import Settings
from store.state import keys, running, wipe
from store.state.apply import counted_settings
from store.state.apply.foreign_data import foreign_data
from store.state.inspection import memory, overview
from store.state.lease import Lease
from store.state.shards import Shards
from testing.redis_cluster import RedisCluster
from tests.store.state.servers.test_cluster import moving, other_primary

USERS = 40


def _fill(settings: Settings, shards: Shards) -> None:
    counted_settings.check(shards.first, settings)
    for number in range(USERS):
        client = shards.of_user(f"user-{number}")
        client.hset(keys.of(client).user(f"user-{number}"), "events", 1)
    for partition in range(4):
        client = shards.of_partition("interactions", partition)
        client.hset(keys.of(client).position("interactions", partition), "position", 10)


def test_a_wipe_while_a_slot_moves_misses_no_key(
    cluster: RedisCluster, cluster_settings: Settings
) -> None:
    with Shards(cluster_settings) as shards:
        _fill(cluster_settings, shards)
        with moving(cluster, other_primary(cluster), 5):
            for step in (wipe.count, wipe.wipe):
                with pytest.raises(StoreUnavailable):
                    step(cluster_settings)
        assert wipe.interrupted(shards.first)
        wipe.wipe(cluster_settings)
        assert not wipe.interrupted(shards.first)
        assert [node.client.dbsize() for node in cluster.primaries()] == [0, 0, 0]


def test_every_primary_is_inspected_and_the_fullest_decides(
    cluster: RedisCluster, cluster_settings: Settings
) -> None:
    with Shards(cluster_settings) as shards:
        _fill(cluster_settings, shards)
        running.Running(shards.first).renew()
        measured = memory.measure(shards, 500, 7)
        assert measured.users == USERS
        assert len(measured.servers) > 1
        assert (measured.used, 0) in measured.servers.values()
        assert measured.used == max(used for used, _ in measured.servers.values())
        with Lease(shards.first, running.REBUILD_LEASE, 30) as lease:
            seen = overview.read(shards, [("interactions", number) for number in range(4)])
            assert seen.rebuild == lease.holder
        assert [part.position for part in seen.partitions] == [10] * 4
        assert len(seen.ingest) == 1
        assert foreign_data(shards, "interactions") == ""
        assert foreign_data(shards, "mine") == "the state of the topic interactions"
