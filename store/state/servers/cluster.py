"""Finds the primary that serves a slot of a Redis Cluster, and connects to it.

All keys of a shard are in one slot, so the client of a shard is one of a single server, whose
connections ask the cluster for the server when they connect. They connect again, and so ask again,

- after a MOVED reply: the slot is at another node now, and
- as any other connection does, also after a READONLY reply (`client_connections`).

While a slot moves, its old node answers ASK for keys that have left, and TRYAGAIN for transactions
with keys on both sides. Both end with the move, so both are StoreUnavailable: retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis.crc import key_slot

from store.state.servers import client_connections as connections

Node = tuple[str, int]
"""Host and port."""


def slot_of(tag: str) -> int:
    """The slot of all keys with this hash tag."""
    return int(key_slot(tag.encode()))


def named_node(host: str | bytes | None, port: str | int, by_host: str) -> Node:
    """The node that a reply of a node at `by_host` names; one without a host is at the same."""
    name = host.decode() if isinstance(host, bytes) else host
    return (name if name and name != "?" else by_host), int(port)


def primary_of(slot: int, reply: Sequence[Any], by: Node) -> Node | None:
    """The primary of `slot` in the reply of the node `by` to CLUSTER SLOTS.

    None: the cluster does not serve the slot.
    """
    for first, last, (host, port, *_), *_replicas in reply:
        if int(first) <= slot <= int(last):
            return named_node(host, port, by[0])
    return None


def nodes_in(reply: Sequence[Any], by: Node) -> list[Node]:
    """Every node in the reply to CLUSTER SLOTS."""
    nodes: dict[Node, None] = {}
    for _, _, *servers in reply:
        for host, port, *_ in servers:
            nodes[named_node(host, port, by[0])] = None
    return list(nodes)


class _Nodes:
    """The nodes that may be asked, those last that did not answer when they were last asked.

    A node whose machine is gone does not refuse a connection, and the caller's time may end while
    it is asked. Then the next caller begins with another one.
    """

    def __init__(self, seeds: Sequence[Node]) -> None:
        """`seeds`: nodes of the URL."""
        self._seeds, self._known = list(seeds), list[Node]()
        self._silent: dict[Node, None] = {}

    def in_order(self) -> list[Node]:
        """All nodes; of those that did not answer, the one first that was asked longest ago."""
        nodes = dict.fromkeys((*self._known, *self._seeds))
        silent = [node for node in list(self._silent) if node in nodes]
        return [node for node in nodes if node not in silent] + silent

    def is_asked(self, node: Node) -> None:
        """Call before a node is asked."""
        self._silent.pop(node, None)
        self._silent[node] = None

    def has_answered(self, node: Node, reply: Sequence[Any]) -> None:
        """Call with the reply to CLUSTER SLOTS."""
        self._silent.pop(node, None)
        self._known = nodes_in(reply, node) or self._known


class Topology:
    """Asks the nodes of a cluster which of them is the primary of a slot."""

    def __init__(self, seeds: Sequence[Node], tls: bool, options: Mapping[str, Any]) -> None:
        """`seeds`: nodes of the URL; `options`: arguments of redis-py's connection."""
        self._nodes = _Nodes(seeds)
        self._plain = connections.TLS if tls else connections.Plain
        self._options = dict(options)
        self._clients: dict[Node, redis.Redis] = {}

    def primary(self, slot: int) -> Node:
        """The primary of `slot` by the first node that answers.

        Raises redis.ConnectionError: no node answers, or the slot is not served.
        """
        errors: list[redis.RedisError] = []
        for node in self._nodes.in_order():
            self._nodes.is_asked(node)
            try:
                client: Any = self._client(node)
                reply = client.execute_command("CLUSTER", "SLOTS")
            except redis.RedisError as error:
                errors.append(error)
                continue
            self._nodes.has_answered(node, reply)
            if (primary := primary_of(slot, reply, node)) is not None:
                return primary
            errors.append(redis.ConnectionError(f"the cluster does not serve slot {slot}"))
        raise _cause(errors)

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _client(self, node: Node) -> redis.Redis:
        if node not in self._clients:
            self._clients[node] = redis.Redis.from_pool(
                redis.ConnectionPool(
                    connection_class=self._plain, host=node[0], port=node[1], **self._options
                )
            )
        return self._clients[node]


class TopologyAsync:
    """As `Topology`, for asyncio."""

    def __init__(self, seeds: Sequence[Node], tls: bool, options: Mapping[str, Any]) -> None:
        self._nodes = _Nodes(seeds)
        self._plain = connections.TLSAsync if tls else connections.PlainAsync
        self._options = dict(options)
        self._clients: dict[Node, redis.asyncio.Redis] = {}

    async def primary(self, slot: int) -> Node:
        """As `Topology.primary`."""
        errors: list[redis.RedisError] = []
        for node in self._nodes.in_order():
            self._nodes.is_asked(node)
            try:
                client: Any = self.client(node)
                reply = await client.execute_command("CLUSTER", "SLOTS")
            except redis.RedisError as error:
                errors.append(error)
                continue
            self._nodes.has_answered(node, reply)
            if (primary := primary_of(slot, reply, node)) is not None:
                return primary
            errors.append(redis.ConnectionError(f"the cluster does not serve slot {slot}"))
        raise _cause(errors)

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))
        self._clients.clear()

    def client(self, node: Node) -> redis.asyncio.Redis:
        """The client of one node."""
        if node not in self._clients:
            self._clients[node] = redis.asyncio.Redis.from_pool(
                redis.asyncio.ConnectionPool(
                    connection_class=self._plain, host=node[0], port=node[1], **self._options
                )
            )
        return self._clients[node]


def _cause(errors: Sequence[redis.RedisError]) -> redis.RedisError:
    """The error when no node names a primary: a reply (a wrong password), else the first one."""
    return next((error for error in errors if isinstance(error, redis.ResponseError)), errors[0])


class ClusterPool(redis.ConnectionPool):
    """Connections to the primary of a slot."""

    def __init__(self, topology: Topology, slot: int, tls: bool, **options: Any) -> None:
        self.topology = topology
        super().__init__(
            connection_class=_SlotTLS if tls else _SlotPlain,
            topology=topology,
            slot=slot,
            **options,
        )

    def close(self) -> None:
        """Close the connections, and those that asked for the primary."""
        super().close()
        self.topology.close()


class ClusterPoolAsync(redis.asyncio.ConnectionPool):
    """As `ClusterPool`, for asyncio."""

    def __init__(self, topology: TopologyAsync, slot: int, tls: bool, **options: Any) -> None:
        self.topology = topology
        super().__init__(
            connection_class=_SlotTLSAsync if tls else _SlotPlainAsync,
            topology=topology,
            slot=slot,
            **options,
        )

    async def aclose(self) -> None:
        """As `ClusterPool.close`."""
        await super().aclose()
        await self.topology.aclose()


if TYPE_CHECKING:
    _Sync = connections.Plain
    _Async = connections.PlainAsync
else:
    _Sync = _Async = object


class _ToPrimary(_Sync):
    """Connects to the primary of a slot."""

    def __init__(self, *, topology: Topology, slot: int, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._topology, self._slot = topology, slot

    def _connect(self) -> Any:
        self.host, self.port = self._topology.primary(self._slot)
        return super()._connect()  # type: ignore[no-untyped-call]


class _ToPrimaryAsync(_Async):
    """As `_ToPrimary`."""

    def __init__(self, *, topology: TopologyAsync, slot: int, **options: Any) -> None:
        super().__init__(**options)
        self._topology, self._slot = topology, slot

    async def _connect(self) -> None:
        self.host, self.port = await self._topology.primary(self._slot)
        await super()._connect()  # type: ignore[no-untyped-call]


class _SlotPlain(_ToPrimary, connections.Plain):
    """TCP."""


class _SlotTLS(_ToPrimary, connections.TLS):
    """TLS."""


class _SlotPlainAsync(_ToPrimaryAsync, connections.PlainAsync):
    """TCP, for asyncio."""


class _SlotTLSAsync(_ToPrimaryAsync, connections.TLSAsync):
    """TLS, for asyncio."""
