"""Lists the faults of a Redis Cluster; each is a function of the world."""

from __future__ import annotations

from store.state.keys import Keys
from store.state.servers.cluster import slot_of
from tests.exactly_once.random_schedules.world import World

PAUSE_S = (0.5, 4.0)
"""Seconds of a pause: shorter and longer than other nodes need to take a node for dead."""


def kill_primary(world: World) -> None:
    """kill -9 of a shard's primary: a replica takes over, which may lack the last writes."""
    slot = _slot(world)
    former = world.cluster.kill_primary_of(slot)
    world.cluster.await_other_primary(slot, former)
    world.sleep(world.random.uniform(0.2, 1.0))
    former.start()
    world.cluster.await_ready()


def kill_primary_of_a_late_replica(world: World) -> None:
    """kill -9 of a shard's primary whose replica was down: the writes since then are lost."""
    slot = _slot(world)
    replicas = world.cluster.replicas_of(world.cluster.primary_of(slot))
    for replica in replicas:
        replica.kill()
    world.sleep(world.random.uniform(0.3, 1.0))
    former = world.cluster.kill_primary_of(slot)
    for replica in replicas:
        replica.start()
    world.cluster.await_other_primary(slot, former)
    world.sleep(world.random.uniform(0.0, 0.5))
    former.start()
    world.cluster.await_ready()


def restart_primary(world: World) -> None:
    """kill -9 of a shard's primary, which is back before a replica takes over."""
    world.cluster.kill_primary_of(_slot(world)).start()
    world.cluster.await_ready()


def move_slots(world: World) -> None:
    """Move the slots of one or two shards to other nodes while events flow."""
    for _ in range(world.random.randrange(1, 3)):
        slot = _slot(world)
        source = world.cluster.primary_of(slot)
        others = [node for node in world.cluster.primaries() if node is not source]
        world.cluster.move_slot(
            slot, world.random.choice(others), world.random.choice((5, 20, 100))
        )


def pause_node(world: World) -> None:
    """SIGSTOP of any node for a while; its replica may take over meanwhile."""
    node = world.random.choice(world.cluster.nodes)
    node.pause()
    world.sleep(world.random.uniform(*PAUSE_S))
    node.resume()
    world.cluster.await_ready()


def flush_node(world: World) -> None:
    """FLUSHALL of one node, which has one or several shards."""
    world.cluster.primary_of(_slot(world)).client.flushall()


def _slot(world: World) -> int:
    """The slot of any shard."""
    shards = world.settings.redis_shards
    return slot_of(Keys(world.random.randrange(shards), shards).tag)
