"""Runs a Redis Cluster on loopback: primaries, replicas, moves of slots, and nodes that die.

`cluster` has the whole, `node` one server and what it says of itself.
"""

from testing.redis_cluster.cluster import RedisCluster
from testing.redis_cluster.node import ClusterNode

__all__ = ["ClusterNode", "RedisCluster"]
