"""Runs one node of a Redis Cluster, and parses what it says of the cluster."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testing.redis import RedisServer

if TYPE_CHECKING:  # trustme is not installed where only the demo runs
    from testing.certificates import Certificates

SLOTS = 16_384
NODE_TIMEOUT_MS = 1500
"""Milliseconds without an answer until the other nodes take a node for dead."""
ANSWER_S = 1.0
"""Seconds until a node must answer."""


class View(NamedTuple):
    """What a node says of itself: a line of CLUSTER NODES."""

    id: str
    flags: frozenset[str]
    primary_id: str
    """Of a replica; "-" of a primary."""
    epoch: int
    """Of its slots: the node with the latest one is right."""
    slots: tuple[range, ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parse a line."""
        name, _, flags, primary, _, _, epoch, _, *slots = line.split(" ")
        ranges = [part.partition("-") for part in slots if not part.startswith("[")]
        return cls(
            name,
            frozenset(flags.split(",")),
            primary,
            int(epoch),
            tuple(range(int(first), int(last or first) + 1) for first, _, last in ranges),
        )

    def serves(self, slot: int) -> bool:
        """Whether it is the primary of a slot, as far as it knows."""
        return "master" in self.flags and any(slot in part for part in self.slots)


class ClusterNode(RedisServer):
    """One node; `client` speaks to it."""

    def __init__(
        self,
        directory: Path,
        ports: tuple[int, int],
        certificates: Certificates | None,
        password: str,
    ) -> None:
        """`ports`: of clients and of the other nodes."""
        self.bus_port, self._password = ports[1], password
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-port": str(self.bus_port),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",  # a replica takes over however late it is
            "cluster-allow-replica-migration": "no",
            "repl-diskless-sync-delay": "0",
        }
        if certificates:
            options["tls-cluster"] = "yes"
        if password:
            options |= {"requirepass": password, "masterauth": password}
        super().__init__(directory, ports[0], options=options, certificates=certificates)
        self.client: Any = redis.Redis.from_url(
            self.url,
            password=password or None,
            socket_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 1),
            **self.client_options,
        )
        self.is_paused = False

    @property
    def is_up(self) -> bool:
        """Whether the process runs and is not paused."""
        return self._child is not None and self._child.alive and not self.is_paused

    def cluster(self, *command: str | int) -> Any:
        """The reply to a command of CLUSTER."""
        return self.client.execute_command("CLUSTER", *command)

    def views(self) -> list[View]:
        """What it says of each node."""
        return [View.parse(line) for line in self.cluster("NODES").decode().splitlines()]

    def view(self) -> View:
        """What it says of itself."""
        return next(view for view in self.views() if "myself" in view.flags)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing is answered."""
        self.child.signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)
        self.is_paused = False

    def start(self) -> Self:
        """As `Server.start`."""
        self.is_paused = False
        return super().start()

    def is_ready(self, nodes: int, replicas: int) -> bool:
        """Whether it serves, and knows `nodes`, of which `replicas` follow a primary."""
        info = dict(
            line.split(":", 1) for line in self.cluster("INFO").decode().split("\r\n") if line
        )
        if info["cluster_state"] != "ok" or info["cluster_slots_ok"] != str(SLOTS):
            return False
        views = self.views()
        if len(views) != nodes or any(
            view.flags & {"fail", "fail?", "handshake", "noaddr"} for view in views
        ):
            return False
        replication = self.client.info("replication")
        return sum("slave" in view.flags for view in views) == replicas and (
            replication["role"] == "master" or replication["master_link_status"] == "up"
        )
