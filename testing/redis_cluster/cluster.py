"""Runs the nodes of a Redis Cluster, joins them, and moves slots between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import redis

from core.errors import ProcessFailed
from testing.ports import HOST, free_port
from testing.redis_cluster.node import SLOTS, ClusterNode, View

if TYPE_CHECKING:  # trustme is not installed where only the demo runs
    from testing.certificates import Certificates

_Value = TypeVar("_Value")

READY_S = 60.0
"""Seconds until a state of the cluster must come about; on an idle machine it takes three."""
_WAIT_MS, _MIGRATE_MS = 500, 900
"""Milliseconds that a command may wait; less than testing.redis_cluster.node.ANSWER_S."""


class RedisCluster:
    """A cluster whose slots are divided among `primaries` in their order.

    Replica n follows primary n mod `primaries`. Use as a context manager.
    """

    def __init__(
        self,
        directory: Path,
        primaries: int = 3,
        replicas: int = 3,
        certificates: Certificates | None = None,
        password: str = "",
    ) -> None:
        self._primaries, self._replicas = primaries, replicas
        self._certificates, self._password = certificates, password
        self.nodes = [
            ClusterNode(
                directory / f"node-{number}", (free_port(), free_port()), certificates, password
            )
            for number in range(primaries + replicas)
        ]
        """The first ones are the primaries at the start."""
        self._started = ExitStack()

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        hosts = ",".join(node.address for node in self.nodes[: self._primaries])
        login = f":{self._password}@" if self._password else ""
        return f"{'rediss' if self._certificates else 'redis'}+cluster://{login}{hosts}"

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                self._started.callback(node.client.close)
                node.start()
                self._started.callback(node.kill)
            self._create()
        except BaseException:
            self._started.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def primary_of(self, slot: int) -> ClusterNode:
        """The node that serves a slot. Raises ProcessFailed: none does now."""
        views = self._views()
        serving = [node for node, view in views.items() if view.serves(slot)]
        if not serving:
            raise ProcessFailed(f"no node of the cluster serves slot {slot} now")
        return max(serving, key=lambda node: views[node].epoch)

    def primaries(self) -> list[ClusterNode]:
        """The nodes that serve slots."""
        return [
            node for node, view in self._views().items() if "master" in view.flags and view.slots
        ]

    def replicas_of(self, primary: ClusterNode) -> list[ClusterNode]:
        """The nodes that follow a primary."""
        name = primary.view().id
        return [node for node, view in self._views().items() if view.primary_id == name]

    def kill_primary_of(self, slot: int) -> ClusterNode:
        """kill -9 of the primary of a slot, which `start()` brings back later as a replica.

        Returns it at once; `await_other_primary` waits for the replica that takes over.
        """
        node = self.primary_of(slot)
        node.kill()
        return node

    def await_other_primary(self, slot: int, former: ClusterNode) -> ClusterNode:
        """Wait until another node than `former` serves a slot. Raises ProcessFailed."""

        def other() -> ClusterNode | None:
            try:
                node = self.primary_of(slot)
            except ProcessFailed:
                return None
            return None if node is former else node

        return _await(other, f"a replica takes over slot {slot} of {former.address}")

    def await_ready(self) -> None:
        """Wait until every node serves, and each replica follows. Raises ProcessFailed."""

        def is_ready() -> bool:
            try:
                return all(node.is_ready(len(self.nodes), self._replicas) for node in self.nodes)
            except redis.RedisError:
                return False

        _await(is_ready, "every node of the cluster is up")

    def begin_move(self, slot: int, to: ClusterNode) -> None:
        """Begin to move a slot: its node answers ASK for keys that it lacks."""
        source = self.primary_of(slot)
        to.cluster("SETSLOT", slot, "IMPORTING", source.view().id)
        source.cluster("SETSLOT", slot, "MIGRATING", to.view().id)

    def move_keys(self, slot: int, to: ClusterNode, count: int) -> int:
        """Move up to `count` keys of a slot whose move has begun, and return how many."""
        source = self.primary_of(slot)
        keys = source.cluster("GETKEYSINSLOT", slot, count)
        if keys:
            login = ("AUTH", self._password) if self._password else ()
            source.client.execute_command(
                *("MIGRATE", HOST, to.port, "", 0, _MIGRATE_MS, *login, "KEYS", *keys)
            )
        return len(keys)

    def end_move(self, slot: int, to: ClusterNode) -> None:
        """End the move of a slot that has no key left at its former node.

        Waits until a replica of the new node has the keys: else its fail-over would lose them.
        """
        source, name = self.primary_of(slot), to.view().id
        replicas = len(self.replicas_of(to))
        _await(
            lambda: to.client.wait(replicas, _WAIT_MS) >= replicas,
            f"the replicas of {to.address} have the keys of slot {slot}",
        )
        for node in dict.fromkeys((to, source, *self.primaries())):
            node.cluster("SETSLOT", slot, "NODE", name)

    def move_slot(
        self, slot: int, to: ClusterNode, keys_at_once: int = 10, pause_s: float = 0.01
    ) -> None:
        """Move a slot to another primary, as `redis-cli --cluster reshard` does, while it serves.

        `pause_s`: seconds between two batches, in which clients meet ASK and TRYAGAIN.
        """
        if self.primary_of(slot) is to:
            return
        self.begin_move(slot, to)
        while self.move_keys(slot, to, keys_at_once):
            time.sleep(pause_s)
        self.end_move(slot, to)

    def _create(self) -> None:
        """Join the nodes, as `redis-cli --cluster create` does."""
        first, *others = self.nodes
        bounds = [SLOTS * number // self._primaries for number in range(self._primaries + 1)]
        for number, node in enumerate(self.nodes):
            node.cluster("SET-CONFIG-EPOCH", number + 1)
            if number < self._primaries:
                node.cluster("ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for node in others:
            first.cluster("MEET", HOST, node.port, node.bus_port)

        def have_met() -> bool:
            return all(
                len(views := node.views()) == len(self.nodes)
                and not any("handshake" in view.flags for view in views)
                for node in self.nodes
            )

        _await(have_met, "the nodes of the cluster have met")
        for number, node in enumerate(self.nodes[self._primaries :]):
            node.cluster("REPLICATE", self.nodes[number % self._primaries].view().id)
        self.await_ready()

    def _views(self) -> dict[ClusterNode, View]:
        """Node -> what it says of itself, of the nodes that answer."""
        views = {}
        for node in self.nodes:
            # one that starts, or was killed meanwhile, does not answer
            with suppress(redis.RedisError):
                if node.is_up:
                    views[node] = node.view()
        return views


def _await(condition: Callable[[], _Value | None], what: str) -> _Value:
    """The first truthy value of `condition`. Raises ProcessFailed after READY_S."""
    deadline = time.monotonic() + READY_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise ProcessFailed(f"not within {READY_S:g} s: {what}")
        time.sleep(0.05)
    return value
