"""What goes wrong in a random schedule: each fault is a function of the world.

They run one after the other while traffic goes on.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from testing.redis import RedisServer
from tests.exactly_once.ingest_that_fails import STEPS
from tests.exactly_once.world import END_S, World
from tests.support import eventually

SESSION_S = 7.0
"""Longer than SESSION_TIMEOUT_S of a schedule."""


def kill_ingest(world: World) -> None:
    """kill -9 of an ingest process at any moment; another one starts."""
    world.kill(world.random.choice(world.of("ingest")))
    world.start_ingest()


def kill_ingest_at_a_step(world: World) -> None:
    """An ingest process that kills itself at a step of its protocol takes the place of the
    others.
    """
    step, times = world.random.choice(list(STEPS)), world.random.randrange(1, 12)
    for process in world.of("ingest"):
        world.kill(process)
    process = world.start_ingest(f"die={step},{times}")
    deadline = time.monotonic() + 4  # a step that is not reached so often kills nobody
    while process.child.alive and time.monotonic() < deadline:
        time.sleep(0.05)


def second_ingest(world: World) -> None:
    """One more ingest process, in the group of another one or beside it."""
    group = world.random.choice([None, world.settings.ingest_group])
    world.start_ingest(group=group)
    if group is not None:
        world.start_ingest(group=group)
    world.sleep(1.5)
    while len(world.of("ingest")) > 2:
        process = world.of("ingest")[0]
        process.child.stop()
        world.processes.remove(process)


def freeze_ingest(world: World) -> None:
    """SIGSTOP for a moment while another process takes over; then both go on."""
    frozen = world.random.choice(world.of("ingest"))
    frozen.child.signal(signal.SIGSTOP)
    other = world.start_ingest()
    world.sleep(world.random.uniform(1.5, 2.5))
    frozen.child.signal(signal.SIGCONT)
    world.sleep(0.5)
    (frozen if world.random.random() < 0.5 else other).child.stop()
    world.processes[:] = [
        process
        for process in world.processes
        if process.child.alive or process.child.exit_code != 0
    ]


def freeze_ingest_past_its_session(world: World) -> None:
    """SIGSTOP for so long that the group gives the partitions to another process."""
    for process in world.of("ingest"):
        world.kill(process)
    frozen = world.start_ingest(group=world.settings.ingest_group)
    world.sleep(2.0)
    frozen.child.signal(signal.SIGSTOP)
    world.start_ingest(group=world.settings.ingest_group)
    world.sleep(SESSION_S)
    frozen.child.signal(signal.SIGCONT)


def kill_archiver(world: World) -> None:
    """kill -9 of the archiver, or SIGSTOP while another one takes over."""
    process = world.of("archive")[0]
    if world.random.random() < 0.5:
        world.kill(process)
        world.start_archiver()
    else:
        process.child.signal(signal.SIGSTOP)
        world.start_archiver()
        world.sleep(2.0)
        process.child.signal(signal.SIGCONT)
        world.sleep(0.5)
        world.kill(process)


def kill_redis(world: World) -> None:
    """kill -9, and a start from its AOF."""
    world.redis_server.kill()
    time.sleep(world.random.choice((0.0, 0.3)))
    world.redis_server.start()


def flush_redis(world: World) -> None:
    """FLUSHALL under everybody's feet."""
    with world.redis() as redis:
        redis.flushall()


def set_redis_back(world: World) -> None:
    """Redis becomes an older copy of itself, as a restored backup is."""
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
    """The primary dies and a replica that lags takes its address."""
    primary = world.redis_server
    replica = RedisServer(primary.directory.with_name(f"{primary.directory.name}-replica")).start()
    with Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", primary.port)
        eventually(
            lambda: client.info("replication")["master_link_status"] == "up", "the replica follows"
        )
        world.sleep(0.3)
        # from here on it lags: what the primary takes now is lost with it
        client.replicaof("NO", "ONE")
    world.sleep(world.random.uniform(0.2, 1.2))
    primary.kill()
    replica.stop()
    world.redis_server = RedisServer(replica.directory, port=primary.port).start()


def kill_broker(world: World) -> None:
    """kill -9 of the broker, which keeps its log."""
    world.broker.kill()
    world.broker.start()


def add_partitions(world: World) -> None:
    """The interactions get two partitions more, and sometimes the other topics as well."""
    settings = world.settings
    world.traffic.pause()
    for topic in (settings.interactions_topic, settings.users_topic, settings.items_topic):
        count = len(world.admin.list_topics(topic, timeout=10).topics[topic].partitions)
        if topic == settings.interactions_topic or world.random.random() < 0.3:
            world.add_partitions(topic, count + 2)
    world.traffic.start()  # by producers that know the new partitions


def rebuild_and_wipe(world: World) -> None:
    """An operator rebuilds Redis from the archive."""
    if sum(world.positions().values()):  # an empty archive is refused
        world.rebuild("--wipe")
        world.start_ingest()


def trim_head(world: World) -> None:
    """Retention drops what Redis and the archive hold; then Redis is emptied, so that only the
    archive has it.
    """
    if world.trim():
        world.sleep(world.random.uniform(0.0, 0.5))
        if world.random.random() < 0.7:
            flush_redis(world)


def recreate_topic(world: World) -> None:
    """The interactions are deleted and created anew under running processes: they stop, and the
    advice leads back.
    """
    world.await_progress()
    world.traffic.pause()
    world.recreate_interactions()
    world.traffic.start()
    for process in [*world.of("ingest"), *world.of("archive")]:
        _await_end(world, process.kind)
    world.traffic.pause()
    for process in list(world.processes):
        world.kill(process)
    archive = Path(world.settings.archive_url)
    if archive.exists():
        archive.rename(archive.with_name("archive-of-the-former-topic"))
    flush_redis(world)
    world.start_ingest()
    world.start_archiver()
    world.traffic.start()


def _await_end(world: World, kind: str) -> None:
    """Each process of a kind ends by itself and names the reason, at once or when it is started
    again.
    """
    deadline = time.monotonic() + END_S
    reasons = []
    while time.monotonic() < deadline:
        for process in world.of(kind):
            if not process.child.alive:
                world.processes.remove(process)
                reasons.append(process.child.tail(3))
                if "created anew" in reasons[-1]:
                    continue
                (world.start_ingest if kind == "ingest" else world.start_archiver)()
        if not world.of(kind):
            return
        time.sleep(0.05)
    world.problems.append(
        f"{kind} goes on with a topic that was created anew; earlier ends: {reasons}"
    )
    for process in world.of(kind):
        world.kill(process)


def compact(world: World) -> None:
    """The broker compacts `users` and `items` from now on; some of it is done before the next
    fault.
    """
    world.compact()
    world.sleep(8.0)


class Fault(NamedTuple):
    """`weight`: how often it is drawn; `needs_apache`: other brokers here cannot do it; `most`:
    times in one schedule.
    """

    apply: Callable[[World], None]
    weight: float
    needs_apache: bool = False
    most: int = 3


FAULTS = {
    "kill-ingest": Fault(kill_ingest, 10),
    "kill-ingest-at-a-step": Fault(kill_ingest_at_a_step, 6),
    "second-ingest": Fault(second_ingest, 6),
    "freeze-ingest": Fault(freeze_ingest, 6),
    "freeze-past-session": Fault(freeze_ingest_past_its_session, 1.5, needs_apache=True, most=1),
    "kill-archiver": Fault(kill_archiver, 6),
    "kill-redis": Fault(kill_redis, 10),
    "flush": Fault(flush_redis, 10),
    "set-back": Fault(set_redis_back, 8),
    "fail-over": Fault(fail_over, 8, most=1),
    "kill-broker": Fault(kill_broker, 2, needs_apache=True, most=1),
    "add-partitions": Fault(add_partitions, 5, needs_apache=True, most=2),
    "rebuild-wipe": Fault(rebuild_and_wipe, 5),
    "trim": Fault(trim_head, 6, needs_apache=True),
    "compaction": Fault(compact, 6, needs_apache=True, most=1),
    "recreate-topic": Fault(recreate_topic, 3, needs_apache=True, most=1),
}
