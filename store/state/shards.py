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
from typing import Self

from core.errors import ConfigurationError
from core.murmur2 import partition_of, partitions_of
from core.settings import Settings
from store.state import connection
from store.state.connection import AsyncClient, Client


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


def check_partitions(settings: Settings, topic: str, partitions: int) -> None:
    """Raises ConfigurationError when a partition of `topic` would have users of several shards."""
    shards = settings.redis_shards
    if topic != settings.items_topic and partitions % shards:
        needed = -(-partitions // shards) * shards
        raise ConfigurationError(
            f"{topic} has {partitions} partitions, which is no multiple of REDIS_SHARDS={shards}: "
            f"a partition would have users of several shards. Add partitions: kafka-topics.sh "
            f"--alter --topic {topic} --partitions {needed}"
        )


class Shards:
    """A client of each shard. Use as a context manager, or `close` it."""

    def __init__(self, settings: Settings, timeout_s: float | None = None) -> None:
        """Connects on first use. `timeout_s`: by default REDIS_TIMEOUT_S."""
        self._settings = settings
        self._clients = tuple(
            connection.connect(settings, timeout_s, shard) for shard in range(settings.redis_shards)
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

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    def __getitem__(self, shard: int) -> Client:
        return self._clients[shard]

    @property
    def first(self) -> Client:
        """The client of shard 0, which has what exists once."""
        return self._clients[0]

    def of_user(self, user_id: str) -> Client:
        """The client of a user's shard."""
        return self._clients[shard_of_user(user_id, len(self._clients))]

    def of_partition(self, topic: str, partition: int) -> Client:
        """The client of the shard that has the position of a partition."""
        return self._clients[shard_of_partition(self._settings, topic, partition)]

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()


class AsyncShards:
    """As `Shards`, for asyncio."""

    def __init__(self, settings: Settings, timeout_s: float | None = None) -> None:
        self._settings = settings
        self._clients = tuple(
            connection.connect_async(settings, timeout_s, shard)
            for shard in range(settings.redis_shards)
        )

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[AsyncClient]:
        return iter(self._clients)

    def __getitem__(self, shard: int) -> AsyncClient:
        return self._clients[shard]

    @property
    def first(self) -> AsyncClient:
        """The client of shard 0, which has what exists once."""
        return self._clients[0]

    def of_user(self, user_id: str) -> AsyncClient:
        """The client of a user's shard."""
        return self._clients[shard_of_user(user_id, len(self._clients))]

    def of_partition(self, topic: str, partition: int) -> AsyncClient:
        """The client of the shard that has the position of a partition."""
        return self._clients[shard_of_partition(self._settings, topic, partition)]

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()
