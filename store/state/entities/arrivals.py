"""Waits until an event of the log is in the state, for readers who want to read their own writes.

The position of a partition moves in the transaction that applies its events. So a read that starts
after the position has passed an offset reads that event, too.
"""

from __future__ import annotations

import asyncio
from typing import Any

import redis

from core.errors import StoreCorrupt, StoreError, StoreUnavailable
from store.log.topics.ids import TopicIds
from store.state import keys
from store.state.apply import positions
from store.state.connection import AsyncClient
from store.state.servers.async_pipe import AsyncPipe
from store.state.servers.redis_errors import of_reply
from store.state.shards import AsyncShards

POLL_S = 0.002
"""Seconds between two polls while a caller waits: a tenth of the time until an event is applied. A
poll takes about 30 us of this process.
"""

_Partition = tuple[str, int]
_Waiting = list[tuple[int, asyncio.Future[None]]]


class Arrivals:
    """Polls the positions every POLL_S for all callers together, and only while a caller waits.

    A shard that does not answer fails only who waits for a partition of it. Belongs to one event
    loop.
    """

    def __init__(self, shards: AsyncShards, timeout_s: float, topic_ids: TopicIds) -> None:
        """`timeout_s`: for one round trip, including the connect. The caller closes the clients.

        `topic_ids`: the current ids; positions in a topic with another id are ignored.
        """
        self._shards = shards
        self._of_shard = tuple(_ShardArrivals(client, timeout_s, topic_ids) for client in shards)

    async def wait(self, topic: str, partition: int, offset: int, seconds: float) -> bool:
        """Wait `seconds` at most; whether the message at `offset` is in the state.

        Raises StoreUnavailable, StoreCorrupt.
        """
        shard = keys.of(self._shards.of_partition(topic, partition)).shard
        return await self._of_shard[shard].wait((topic, partition), offset, seconds)

    async def close(self) -> None:
        """Stop; waiting callers get StoreUnavailable."""
        for arrivals in self._of_shard:
            await arrivals.close()


class _ShardArrivals:
    """Waits for positions of one shard."""

    def __init__(self, client: AsyncClient, timeout_s: float, topic_ids: TopicIds) -> None:
        self._keys, self._topic_ids = keys.of(client), topic_ids
        self._pipe = AsyncPipe(client, timeout_s)
        self._waiting: dict[_Partition, _Waiting] = {}
        self._poller: asyncio.Task[None] | None = None

    async def wait(self, partition: _Partition, offset: int, seconds: float) -> bool:
        """As `Arrivals.wait`."""
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(partition, [])
        waiting.append((offset, arrived))
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="arrivals")
        try:
            await asyncio.wait([arrived], timeout=seconds)
            if arrived.done():
                arrived.result()
            return arrived.done()
        finally:
            arrived.cancel()  # the next poll ignores it

    async def close(self) -> None:
        """As `Arrivals.close`."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        await self._pipe.drop()

    async def _poll(self) -> None:
        """Poll until no caller waits.

        Runs in its own task, so that a cancelled caller does not cancel the poll of the others.
        """
        failure: StoreError = StoreUnavailable("waiting for a position was interrupted")
        try:
            while self._still_waiting():
                await self._poll_once()
                await asyncio.sleep(POLL_S)
        except StoreError as error:
            failure = error
        finally:
            self._poller = None
            for waiting in self._waiting.values():
                for _, arrived in waiting:
                    if not arrived.done():
                        arrived.set_exception(failure)
            self._waiting.clear()

    def _still_waiting(self) -> bool:
        for partition, waiting in list(self._waiting.items()):
            waiting[:] = [(offset, arrived) for offset, arrived in waiting if not arrived.done()]
            if not waiting:
                del self._waiting[partition]
        return bool(self._waiting)

    async def _poll_once(self) -> None:
        partitions = list(self._waiting)
        replies = await self._pipe.ask(
            "reading positions",
            [
                ("HMGET", self._keys.position(*partition), "position", "topic_id")
                for partition in partitions
            ],
        )
        for partition, reply in zip(partitions, replies, strict=True):
            position = self._position(partition, reply)
            for offset, arrived in self._waiting[partition]:
                if offset < position and not arrived.done():
                    arrived.set_result(None)

    def _position(self, partition: _Partition, reply: Any) -> int:
        if isinstance(reply, redis.ResponseError):
            raise of_reply(f"reading the position of {partition[0]}/{partition[1]}", reply)
        offset, stored_id = reply
        topic_id = self._topic_ids.latest(partition[0])
        try:
            return positions.offset_in(topic_id, stored_id, int(offset or 0))
        except ValueError:
            raise StoreCorrupt(
                f"{self._keys.position(*partition)} holds the position {offset!r}, "
                "which is no number"
            ) from None
