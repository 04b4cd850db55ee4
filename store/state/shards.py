"""Divides the state into shards, each of which is in one slot of a Redis Cluster.

A user belongs to a shard by murmur2 of the id, as to a partition of Kafka: with S shards and a
multiple of S partitions, partition p has the users of shard p mod S, and no others. So the state of
a partition and its position are in one slot, and change in one transaction. Partitions may be
added, up to another multiple of S; S itself is fixed until a rebuild.

Shard 0 also has what exists once: catalogue, settings, leases, and what the live workers compute
for new items. With one shard, everything is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from core.errors import BadEvent
from core.murmur2 import partition_of, partitions_of
from core.settings import Settings
from store.state import connection, keys
from store.state.connection import AsyncClient, Client
from store.state.servers.cluster import ClusterPool, slot_of

_KNOWN_USERS = 200_000
"""Users whose shard is remembered, some 20 MB."""


def shard_of_user(user_id: str, shards: int) -> int:
    """The shard of a user."""
    return 0 if shards == 1 else partition_of(user_id.encode(), shards)


def shards_of_users(user_ids: Sequence[str], shards: int) -> list[int]:
    """The shard of each user."""
    if shards == 1:
        return [0] * len(user_ids)
    return [int(n) for n in partitions_of([user_id.encode() for user_id in user_ids], shards)]


def users_by_shard(user_ids: Iterable[str], shards: int) -> dict[int, list[str]]:
    """Shard -> its users among `user_ids`, in the same order; only shards that have some."""
    ids = list(user_ids)
    by_shard: dict[int, list[str]] = {}
    for user_id, shard in zip(ids, shards_of_users(ids, shards), strict=True):
        by_shard.setdefault(shard, []).append(user_id)
    return by_shard


def shard_of_partition(settings: Settings, topic: str, partition: int) -> int:
    """The shard of a partition of the topics of interactions, users or items."""
    return 0 if topic == settings.items_topic else partition % settings.redis_shards


class UserCheck:
    """Refuses users who are not of the shard of the partition that their record is in.

    The state of such a user would be in another slot than the position of the partition. Where
    there is one shard, nothing is refused.
    """

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._shard_of: dict[str, int] = {}

    def accepts(self, user_ids: Iterable[str], partition: int) -> bool:
        """Whether `check` refuses none of these users."""
        if self._shards == 1:
            return True
        try:
            for user_id in user_ids:
                self.check(user_id, partition)
        except BadEvent:
            return False
        return True

    def check(self, user_id: str, partition: int) -> None:
        """Raises BadEvent: a producer chose this partition, of interactions or users, by another
        rule than murmur2.
        """
        shards = self._shards
        if shards == 1:
            return
        shard = self._shard_of.get(user_id)
        if shard is None:
            if len(self._shard_of) >= _KNOWN_USERS:
                self._shard_of.clear()
            shard = self._shard_of[user_id] = shard_of_user(user_id, shards)
        if shard != partition % shards:
            raise BadEvent(
                "foreign_partition",
                f"user {user_id!r} belongs to shard {shard} of {shards}, partition {partition} to "
                f"shard {partition % shards}: the producer must use the user id as key and the "
                f"partitioner murmur2 (librdkafka: partitioner=murmur2_random); `python -m streams "
                f"dlq replay` sends this record to the right partition",
            )


_Client = TypeVar("_Client")


class _Clients(Generic[_Client]):
    """A client of each shard."""

    def __init__(self, settings: Settings, clients: Iterable[_Client]) -> None:
        self._settings = settings
        self._clients: tuple[_Client, ...] = tuple(clients)

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[_Client]:
        return iter(self._clients)

    def __getitem__(self, shard: int) -> _Client:
        return self._clients[shard]

    @property
    def first(self) -> _Client:
        """The client of shard 0, which has what exists once."""
        return self._clients[0]

    def of_user(self, user_id: str) -> _Client:
        """The client of a user's shard."""
        return self._clients[shard_of_user(user_id, len(self._clients))]

    def of_partition(self, topic: str, partition: int) -> _Client:
        """The client of the shard that has the position of a partition."""
        return self._clients[shard_of_partition(self._settings, topic, partition)]


class Shards(_Clients[Client]):
    """A client of each shard. Use as a context manager, or `close` it."""

    def __init__(self, settings: Settings, timeout_s: float | None = None) -> None:
        """Connects on first use. `timeout_s`: by default REDIS_TIMEOUT_S."""
        numbers = range(settings.redis_shards)
        super().__init__(
            settings, (connection.connect(settings, timeout_s, shard) for shard in numbers)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()


class AsyncShards(_Clients[AsyncClient]):
    """As `Shards`, for asyncio."""

    def __init__(self, settings: Settings, timeout_s: float | None = None) -> None:
        numbers = range(settings.redis_shards)
        super().__init__(
            settings, (connection.connect_async(settings, timeout_s, shard) for shard in numbers)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()


def by_server(shards: Iterable[Client]) -> dict[str, Client]:
    """A client of each server that has a shard, by host and port; "" where it is no cluster.

    Raises redis.RedisError.
    """
    clients: dict[str, Client] = {}
    for client in shards:
        pool, server = client.connection_pool, ""
        if isinstance(pool, ClusterPool):
            host, port = pool.topology.primary(slot_of(keys.of(client).tag))
            server = f"{host}:{port}"
        clients.setdefault(server, client)
    return clients
