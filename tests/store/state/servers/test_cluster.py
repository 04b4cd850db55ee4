"""Clients of a Redis Cluster find the node of their shard, and find it again after a move, a
fail-over and a node that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from core.errors import StoreMisconfigured, StoreUnavailable
from core.settings import Settings
from store.state import connection, keys
from store.state.connection import Client, named_errors
from store.state.servers import client_connections
from store.state.servers.async_pipe import AsyncPipe
from store.state.servers.cluster import slot_of
from store.state.shards import AsyncShards, Shards
from testing.certificates import Certificates
from testing.redis import RedisServer
from testing.redis_cluster import ClusterNode, RedisCluster
from tests.support import eventually, skipped_without_tls

SHARD = 2
SLOT = slot_of(str(SHARD))


@pytest.fixture(autouse=True)
def _long_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test passes because a connection is made again by its age."""
    monkeypatch.setattr(client_connections, "MAX_AGE_S", 3600.0)


def other_primary(cluster: RedisCluster) -> ClusterNode:
    """A primary that does not serve SLOT."""
    source = cluster.primary_of(SLOT)
    return next(node for node in cluster.primaries() if node is not source)


@pytest.fixture
def client(cluster_settings: Settings) -> Iterator[Client]:
    with connection.connect(cluster_settings, shard=SHARD) as client:
        yield client


def user(client: Any, number: int) -> str:
    """The key of a user in a client's shard."""
    return keys.of(client).user(f"user-{number}")


def write(client: Client, users: int) -> None:
    """Write users by one transaction."""
    pipe = client.pipeline()
    for number in range(users):
        pipe.hset(user(client, number), "events", str(number))
    pipe.execute()


def read(client: Client, number: int = 7) -> bytes | None:
    """The events of a user. Raises StoreUnavailable."""
    with named_errors("reading a user"):
        value: bytes | None = client.hget(user(client, number), "events")  # type: ignore[assignment]
    return value


@contextmanager
def moving(cluster: RedisCluster, to: ClusterNode, first: int) -> Iterator[None]:
    """A move of SLOT in which `first` keys have moved during the block; afterwards it ends."""
    cluster.begin_move(SLOT, to)
    cluster.move_keys(SLOT, to, first)
    yield
    while cluster.move_keys(SLOT, to, 100):
        pass
    cluster.end_move(SLOT, to)


def test_all_keys_of_a_shard_are_in_one_slot(
    cluster: RedisCluster, cluster_settings: Settings
) -> None:
    with Shards(cluster_settings) as shards:
        for number, client in enumerate(shards):
            write(client, 3)
            node = cluster.primary_of(slot_of(str(number)))
            assert node.client.cluster("COUNTKEYSINSLOT", slot_of(str(number))) == 3
        assert len({cluster.primary_of(slot_of(str(n))).port for n in range(4)}) > 1, "two nodes"


def test_a_client_follows_its_slot_to_another_node(cluster: RedisCluster, client: Client) -> None:
    write(client, 20)
    cluster.move_slot(SLOT, other_primary(cluster))
    with pytest.raises(StoreUnavailable, match=r"MOVED .*asks where it is"):
        read(client)
    assert read(client) == b"7"
    write(client, 3)


def test_a_pipe_and_an_event_loop_follow_a_slot_to_another_node(
    cluster: RedisCluster, cluster_settings: Settings, client: Client
) -> None:
    async def follow() -> None:
        shards = AsyncShards(cluster_settings)
        mine = shards[SHARD]
        pipe = AsyncPipe(mine, 5.0)
        key = user(mine, 7)
        command = ("HGET", key, "events")
        assert await pipe.ask("reading", [command]) == [b"7"] == [await mine.hget(key, "events")]
        await asyncio.to_thread(cluster.move_slot, SLOT, other_primary(cluster))
        assert await pipe.ask("reading", [command]) == [b"7"], "at once"
        with pytest.raises(redis.ResponseError, match=str(SLOT)):
            await mine.hget(key, "events")
        assert await pipe.ask("reading", [command]) == [b"7"] == [await mine.hget(key, "events")]
        await pipe.drop()
        await shards.aclose()

    write(client, 20)
    asyncio.run(follow())


def test_while_a_slot_moves_its_keys_wait_and_no_transaction_is_divided(
    cluster: RedisCluster, client: Client
) -> None:
    write(client, 20)
    with moving(cluster, other_primary(cluster), 10):
        values: list[bytes | None] = []
        refused = ""
        for number in range(20):
            try:
                values.append(read(client, number))
            except StoreUnavailable as error:
                refused = str(error)
        assert len(values) == 10
        assert None not in values, "a key that has moved must not look like none"
        assert "ASK" in refused
        with (
            pytest.raises(StoreUnavailable, match=r"TRYAGAIN|ASK"),
            named_errors("writing users"),
        ):
            write(client, 20)
        with pytest.raises(StoreUnavailable), named_errors("listing users"):
            list(client.scan_iter(user(client, 0)[:-1] + "*"))
    eventually(lambda: _succeeds(client), "the client finds the new node", every=0.1)
    assert [read(client, number) for number in range(20)] == [b"%d" % n for n in range(20)]


def _succeeds(client: Client) -> bool:
    with suppress(StoreUnavailable):
        return read(client) is not None
    return False


def test_a_list_of_keys_is_refused_by_a_node_that_lost_the_slot(
    cluster: RedisCluster, client: Client
) -> None:
    write(client, 20)
    pattern = keys.of(client).user("*")
    listing = client.scan_iter(pattern, count=2)
    next(listing)
    cluster.move_slot(SLOT, other_primary(cluster))
    with pytest.raises(StoreUnavailable, match="MOVED"), named_errors("listing users"):
        list(listing)
    assert len(list(client.scan_iter(pattern, count=2))) == 20


def test_a_client_follows_a_fail_over_and_asks_no_node_that_hangs_twice(
    cluster: RedisCluster, cluster_settings: Settings, client: Client
) -> None:
    write(client, 20)
    source = cluster.primary_of(SLOT)
    eventually(lambda: source.client.wait(1, 100), "the replica has the users")
    source.pause()
    try:
        assert cluster.await_other_primary(SLOT, source) is not source

        async def read_soon() -> None:
            """Each read ends sooner than the node that hangs is given up."""
            mine = connection.connect_async(cluster_settings, 1.0, SHARD)
            pipe = AsyncPipe(mine, 0.5)
            for _ in range(len(cluster.nodes)):
                with suppress(StoreUnavailable):
                    replies = await pipe.ask("reading", [("HGET", user(mine, 7), "events")])
                    assert replies == [b"7"]
                    break
            else:
                pytest.fail("every read ended at the node that hangs")
            await pipe.drop()
            await mine.aclose()

        asyncio.run(read_soon())
        eventually(lambda: _succeeds(client), "the client follows")
        write(client, 3)
    finally:
        source.resume()
        cluster.await_ready()
    assert read(client) == b"7"


def test_the_address_of_one_node_is_no_address_of_a_cluster(cluster: RedisCluster) -> None:
    single = Settings(redis_url=SecretStr(cluster.nodes[0].url))
    with (
        connection.connect(single) as client,
        pytest.raises(StoreMisconfigured, match=r"node of a cluster: write redis\+cluster://"),
    ):
        connection.check_server(client)


def test_a_server_alone_is_no_cluster(redis_server: RedisServer) -> None:
    alone = Settings(redis_url=SecretStr(f"redis+cluster://{redis_server.address}"), redis_shards=4)
    with (
        connection.connect(alone) as client,
        pytest.raises(StoreMisconfigured, match="no node of a cluster: write redis://"),
    ):
        connection.check_server(client)


def test_a_cluster_with_tls_and_password_is_reached_by_both(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    certificates = Certificates(tmp_path / "certificates")
    nodes = RedisCluster(tmp_path / "nodes", 2, 0, certificates, password="right")
    with skipped_without_tls(), nodes:
        settings = Settings(
            redis_url=SecretStr(nodes.url), redis_ssl_ca=certificates.ca, redis_shards=4
        )
        with Shards(settings) as shards:
            for client in shards:
                connection.check_server(client)
                write(client, 3)
        wrong = settings.model_copy(
            update={"redis_url": SecretStr(nodes.url.replace("right", "wrong"))}
        )
        with (
            connection.connect(wrong) as client,
            pytest.raises(StoreMisconfigured, match="put the user name and password") as error,
        ):
            connection.check_server(client)
        assert "wrong@" not in str(error.value)
        untrusted = settings.model_copy(update={"redis_ssl_ca": certificates.other_ca})
        with (
            connection.connect(untrusted) as client,
            pytest.raises(StoreMisconfigured, match="REDIS_SSL_CA"),
        ):
            connection.check_server(client)
