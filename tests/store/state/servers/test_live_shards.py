"""A live worker on a Redis Cluster goes on where the slot of a shard is now."""

from __future__ import annotations

import pytest

from core.errors import StoreUnavailable
from core.settings import Settings
from store.state.servers.cluster import slot_of
from store.state.shards import shard_of_user
from testing.redis_cluster import RedisCluster
from tests.live.parts import Worker


def test_a_slot_that_moves_between_a_read_and_its_write_loses_no_vector(
    cluster: RedisCluster, cluster_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is processed again, as the worker does when Redis does not answer."""
    worker = Worker(cluster_settings)
    names = ("ann", "cat", "eve")
    for name in names:
        worker.add_likes(name, "item-1", "new")
    slot = slot_of(str(shard_of_user("ann", 4)))
    store, source = worker.store_of("ann"), cluster.primary_of(slot)
    read = store.read

    def read_and_move(user_ids: list[str]) -> object:
        users = read(user_ids)
        if cluster.primary_of(slot) is source:
            to = next(node for node in cluster.primaries() if node is not source)
            cluster.move_slot(slot, to)
        return users

    monkeypatch.setattr(store, "read", read_and_move)
    hint = [(name, "new") for name in names]
    with pytest.raises(StoreUnavailable):
        worker.fold(*hint)
    worker.fold(*hint)
    worker.maintain()
    assert cluster.primary_of(slot) is not source
    assert {name: worker.user(name)[b"as_of"] for name in names} == dict.fromkeys(names, b"2")
    assert worker.item("new")[b"as_of"] == b"3"
    worker.close()
