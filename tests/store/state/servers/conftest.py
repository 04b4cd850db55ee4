"""A Redis Cluster for the tests of connections to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from core.settings import Settings
from testing.redis_cluster import RedisCluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Three primaries with a replica each; every test leaves all of them up."""
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def cluster_settings(cluster: RedisCluster) -> Settings:
    """Settings with four shards in the cluster, which is empty."""
    for node in cluster.primaries():
        node.client.flushall()
    return Settings(redis_url=SecretStr(cluster.url), redis_shards=4, redis_timeout_s=2.0)
