"""Lists the faults of random schedules; each is a function of the world.

A schedule runs them one after the other while the traffic continues.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from testing.apache import KafkaBroker
from testing.redis import RedisServer
from tests.exactly_once.ingest_that_fails import STEPS
from tests.exactly_once.random_schedules import cluster_faults
from tests.exactly_once.random_schedules.world import World
from tests.support import eventually

SESSION_S = 7.0
"""Seconds, longer than SESSION_TIMEOUT_S of a schedule."""
END_S = 40.0
"""Seconds in which a process must end: a read that waits for a server times out after 10."""


def kill_ingest(world: World) -> None:
    """kill -9 of an ingest process at any time; another one starts."""
    world.processes.kill(world.random.choice(world.processes.of("ingest")))
    world.processes.start_ingest()


def kill_ingest_at_a_step(world: World) -> None:
    """Replace the ingest processes by one that kills itself at a step of its protocol."""
    step, times = world.random.choice(list(STEPS)), world.random.randrange(1, 12)
    for process in world.processes.of("ingest"):
        world.processes.kill(process)
    process = world.processes.start_ingest(f"die={step},{times}")
    deadline = time.monotonic() + 4  # a step that is reached less often kills no process
    while process.child.alive and time.monotonic() < deadline:
        time.sleep(0.05)


def second_ingest(world: World) -> None:
    """Start another ingest process, in its own group or in a shared one.

    The embedded broker gets no shared group: if one member leaves while another joins, it assigns
    no partition to anybody again.
    """
    group = world.random.choice([None, world.settings.ingest_group])
    if not isinstance(world.broker, KafkaBroker):
        group = None
    world.processes.start_ingest(group=group)
    if group is not None:
        world.processes.start_ingest(group=group)
    world.sleep(1.5)
    while len(world.processes.of("ingest")) > 2:
        world.processes.stop(world.processes.of("ingest")[0])


def freeze_ingest(world: World) -> None:
    """SIGSTOP of an ingest process while another one takes over; then both continue."""
    frozen = world.random.choice(world.processes.of("ingest"))
    frozen.child.signal(signal.SIGSTOP)
    other = world.processes.start_ingest()
    world.sleep(world.random.uniform(1.5, 2.5))
    frozen.child.signal(signal.SIGCONT)
    world.sleep(0.5)
    (frozen if world.random.random() < 0.5 else other).child.stop()
    world.processes.remove_stopped()


def freeze_ingest_past_its_session(world: World) -> None:
    """SIGSTOP until the consumer group assigns the partitions to another process."""
    for process in world.processes.of("ingest"):
        world.processes.kill(process)
    frozen = world.processes.start_ingest(group=world.settings.ingest_group)
    world.sleep(2.0)
    frozen.child.signal(signal.SIGSTOP)
    world.processes.start_ingest(group=world.settings.ingest_group)
    world.sleep(SESSION_S)
    frozen.child.signal(signal.SIGCONT)


def kill_archiver(world: World) -> None:
    """kill -9 of the archiver, or SIGSTOP while another one takes over."""
    process = world.processes.of("archive")[0]
    if world.random.random() < 0.5:
        world.processes.kill(process)
        world.processes.start_archiver()
    else:
        process.child.signal(signal.SIGSTOP)
        world.processes.start_archiver()
        world.sleep(2.0)
        process.child.signal(signal.SIGCONT)
        world.sleep(0.5)
        world.processes.kill(process)


def kill_redis(world: World) -> None:
    """kill -9 of Redis, and a start from its AOF."""
    world.redis_server.kill()
    time.sleep(world.random.choice((0.0, 0.3)))
    world.redis_server.start()


def flush_redis(world: World) -> None:
    """FLUSHALL while everything runs."""
    world.flush()


def set_redis_back(world: World) -> None:
    """Set Redis back to an older copy, as when a backup is restored."""
    server, copy = world.redis_server, world.directory / "older"
    server.kill()
    shutil.copytree(server.directory / "appendonlydir", copy)
    server.start()
    world.sleep(world.random.uniform(0.5, 2.0))
    server.kill()
    shutil.rmtree(server.directory / "appendonlydir")
    copy.rename(server.directory / "appendonlydir")
    server.start()


def fail_over(world: World) -> None:
    """Kill the primary; a replica that lags gets its address."""
    primary = world.redis_server
    replica = RedisServer(primary.directory.with_name(f"{primary.directory.name}-replica")).start()
    with Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", primary.port)
        eventually(
            lambda: client.info("replication")["master_link_status"] == "up", "the replica follows"
        )
        world.sleep(0.3)
        # from here on it lags: later writes to the primary are lost
        client.replicaof("NO", "ONE")
    world.sleep(world.random.uniform(0.2, 1.2))
    primary.kill()
    replica.stop()
    world.redis_server = RedisServer(replica.directory, port=primary.port).start()


def kill_broker(world: World) -> None:
    """kill -9 of the broker, which has its log on disk."""
    world.broker.kill()
    world.broker.start()


def add_partitions(world: World) -> None:
    """Add partitions to the interactions, and sometimes to the other topics: two, or one to each
    shard.
    """
    settings = world.settings
    more = max(2, settings.redis_shards)
    world.traffic.pause()
    for topic in (settings.interactions_topic, settings.users_topic, settings.items_topic):
        count = world.topics.partitions(topic)
        if topic == settings.interactions_topic or world.random.random() < 0.3:
            world.topics.add_partitions(topic, count + more)
    world.traffic.start()  # with producers that know the new partitions


def rebuild_and_wipe(world: World) -> None:
    """Rebuild Redis from the archive, as an operator does."""
    if sum(world.positions().values()):  # an empty archive is refused
        with world.topics.no_compaction():
            world.processes.rebuild("--wipe")
            world.processes.start_ingest()
            world.await_changes()


def trim_head(world: World) -> None:
    """Remove the records that Redis and the archive have, as retention does.

    Often Redis is emptied afterwards, so that only the archive has them.
    """
    if world.trim():
        world.sleep(world.random.uniform(0.0, 0.5))
        if world.random.random() < 0.7:
            flush_redis(world)


def recreate_topic(world: World) -> None:
    """Delete the interactions topic and create it again while processes run.

    They stop, and the advice of their message makes them run again.
    """
    world.await_progress()
    world.traffic.pause()
    world.recreate_interactions()
    world.traffic.start()
    for process in world.processes.all():
        _await_end(world, process.kind)
    world.traffic.pause()
    world.processes.kill_all()
    archive = Path(world.settings.archive_url)
    if archive.exists():
        archive.rename(archive.with_name("archive-of-the-former-topic"))
    flush_redis(world)
    world.processes.start_ingest()
    world.processes.start_archiver()
    world.traffic.start()


def _await_end(world: World, kind: str) -> None:
    """Wait until each process of a kind ends and names the reason, at once or after a restart."""
    deadline = time.monotonic() + END_S
    reasons = []
    while time.monotonic() < deadline:
        for process in world.processes.of(kind):
            if not process.child.alive:
                world.processes.remove(process)
                reasons.append(process.child.tail(3))
                if "created anew" in reasons[-1]:
                    continue
                (
                    world.processes.start_ingest
                    if kind == "ingest"
                    else world.processes.start_archiver
                )()
        if not world.processes.of(kind):
            return
        time.sleep(0.05)
    world.report(f"{kind} continues with a topic that was created anew; earlier ends: {reasons}")
    for process in world.processes.of(kind):
        world.processes.kill(process)


def compact(world: World) -> None:
    """Let the broker compact `users` and `items` from now on; some of it before the next fault."""
    world.topics.compact()
    world.sleep(8.0)


class Fault(NamedTuple):
    """A fault, and how often it is drawn.

    `weight`: of the random choice; `needs_apache`: the embedded broker cannot do it; `most`: in one
    schedule; `of`: "server" or "cluster", if it is one of a single Redis or of a cluster.
    """

    apply: Callable[[World], None]
    weight: float
    needs_apache: bool = False
    most: int = 3
    of: str = ""


FAULTS = {
    "kill-ingest": Fault(kill_ingest, 10),
    "kill-ingest-at-a-step": Fault(kill_ingest_at_a_step, 6),
    "second-ingest": Fault(second_ingest, 6),
    "freeze-ingest": Fault(freeze_ingest, 6),
    "freeze-past-session": Fault(freeze_ingest_past_its_session, 1.5, needs_apache=True, most=1),
    "kill-archiver": Fault(kill_archiver, 6),
    "kill-redis": Fault(kill_redis, 10, of="server"),
    "flush": Fault(flush_redis, 10, of="server"),
    "set-back": Fault(set_redis_back, 8, of="server"),
    "fail-over": Fault(fail_over, 8, most=1, of="server"),
    "kill-broker": Fault(kill_broker, 2, needs_apache=True, most=1),
    "add-partitions": Fault(add_partitions, 5, needs_apache=True, most=2),
    "rebuild-wipe": Fault(rebuild_and_wipe, 5),
    "trim": Fault(trim_head, 6, needs_apache=True),
    "compaction": Fault(compact, 6, needs_apache=True, most=1),
    "recreate-topic": Fault(recreate_topic, 3, needs_apache=True, most=1),
    "kill-primary": Fault(cluster_faults.kill_primary, 12, most=2, of="cluster"),
    "kill-late": Fault(cluster_faults.kill_primary_of_a_late_replica, 10, most=2, of="cluster"),
    "restart-primary": Fault(cluster_faults.restart_primary, 6, of="cluster"),
    "move-slots": Fault(cluster_faults.move_slots, 16, of="cluster"),
    "pause-node": Fault(cluster_faults.pause_node, 10, most=2, of="cluster"),
    "flush-node": Fault(cluster_faults.flush_node, 6, of="cluster"),
}
