"""Sends packed commands over one connection of an event loop.

The commands of many callers leave as one write, and their replies return as one read.

While a slot of a cluster moves, its node names another one for keys that have left (ASK, in the end
MOVED). Their commands are sent there at once, so that reads go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
import redis
import redis.asyncio

from store.state.connection import named_errors
from store.state.servers import client_connections
from store.state.servers.cluster import ClusterPoolAsync, Node, named_node

Command = tuple[str | int, ...]
STEPS = 5
"""Steps of a timeout, each of which needs a turn of the event loop."""
_ASKING = b"*1\r\n$6\r\nASKING\r\n"
"""Lets a node answer the next command with a key of a slot that is moving to it."""
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one


class AsyncPipe:
    """One connection for packed commands, made again after MAX_AGE_S. For one caller at a time.

    The client connects, authenticates and selects the database. Replies are parsed here, because
    the parser of the client takes about 10 us a reply.
    """

    def __init__(self, client: redis.asyncio.Redis, timeout_s: float) -> None:
        """`timeout_s`: for one round trip, including the connect, and what must be sent to another
        node. The caller closes the client.
        """
        self._pool, self._timeout_s = client.connection_pool, timeout_s
        self._other_nodes: dict[Node, AsyncPipe] = {}
        self._connection: Any = None
        self._until = 0.0
        self._replies = hiredis.Reader()

    async def ask(self, what: str, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command; an error reply is returned as a redis.ResponseError.

        `what`: the operation, for the error message; `commands`: each of a single key. Raises
        StoreUnavailable.
        """
        payload = b"".join([_pack(command) for command in commands])
        with named_errors(what):
            try:
                async with LoopTimeout(self._timeout_s):
                    replies = await self._ask(payload, len(commands))
                    if isinstance(self._pool, ClusterPoolAsync):
                        await self._follow(self._pool, commands, replies)
                    return replies
            except BaseException:
                await self.drop()  # its unread replies must not be read as those of the next call
                raise

    async def drop(self) -> None:
        """Disconnect; the next `ask` connects again."""
        connection, self._connection = self._connection, None
        others, self._other_nodes = self._other_nodes, {}
        for other in others.values():
            await other.drop()
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def _follow(
        self, pool: ClusterPoolAsync, commands: Sequence[Command], replies: list[Any]
    ) -> None:
        """Send the commands whose replies name another node there, once; put in its replies."""
        at_node: dict[Node, list[int]] = {}
        for number, reply in enumerate(replies):
            if isinstance(reply, redis.ResponseError):
                code, _, place = str(reply).partition(" ")
                if code in ("ASK", "MOVED"):
                    host, _, port = place.split(" ")[1].rpartition(":")
                    node = named_node(host, int(port), self._connection.host)
                    at_node.setdefault(node, []).append(number)
        for node, numbers in at_node.items():
            if node not in self._other_nodes:
                other = pool.topology.client(node)
                self._other_nodes[node] = AsyncPipe(other, self._timeout_s)
            payload = b"".join([_ASKING + _pack(commands[number]) for number in numbers])
            followed = await self._other_nodes[node]._ask(payload, 2 * len(numbers))
            for number, reply in zip(numbers, followed[1::2], strict=True):
                replies[number] = reply

    async def _ask(self, payload: bytes, count: int) -> list[Any]:
        if time.monotonic() > self._until:
            await self.drop()  # the host name may stand for another server by now
        if self._connection is None:
            self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            self._until = time.monotonic() + client_connections.MAX_AGE_S
            self._replies = hiredis.Reader(replyError=self._error)
        connection = self._connection
        connection._writer.write(payload)
        replies: list[Any] = []
        while True:
            while len(replies) < count and (reply := self._replies.gets()) is not False:
                if not isinstance(reply, hiredis.PushNotification):
                    replies.append(reply)
            if len(replies) == count:
                return replies
            data = await connection._reader.read(1 << 18)
            if not data:
                raise redis.ConnectionError("the server closed the connection")
            self._replies.feed(data)

    def _error(self, text: str) -> redis.ResponseError:
        """An error reply; the next `ask` connects again if the data are at another server now."""
        if text.startswith(client_connections.ELSEWHERE):
            self._until = 0.0
        return redis.ResponseError(text)


class LoopTimeout:
    """A timeout in STEPS steps; each step starts when the loop has run the end of the last one.

    An event loop that was blocked runs its timers before it reads its sockets. With one timer, an
    answer that arrived in time would count as late, and the server as unavailable. Here a blocked
    loop uses up one step, and the answer is read before the next one. Raises TimeoutError.
    """

    def __init__(self, seconds: float) -> None:
        self._step_s, self._left = seconds / STEPS, STEPS

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = await asyncio.timeout(None).__aenter__()
        self._timer = self._loop.call_later(self._step_s, self._step)

    async def __aexit__(self, *error: Any) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(*error)

    def _step(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._step_s, self._step)
        else:
            self._timeout.reschedule(self._loop.time())
