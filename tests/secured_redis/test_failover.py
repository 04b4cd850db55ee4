"""Every event counts exactly once, no process ends and every read is answered while another Redis
becomes the primary, by Sentinel or behind a host name, and while Redis is full.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis, RedisError, ResponseError

from core.settings import Settings
from store.state import connection
from testing.certificates import Certificates
from testing.process import Child, settings_environment
from testing.proxy import Proxy
from testing.redis import SERVICE, RedisServer, SentinelGroup
from tests import oracle
from tests.api.world import port_of, publish
from tests.conftest import Spawn
from tests.exactly_once.conftest import caught_up
from tests.exactly_once.traffic import Traffic
from tests.support import Background, eventually, skipped_without_tls


class Reads(Background):
    """Reads recommendations of a user all the time; `failures`: answers that are not 200."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.answers, self.failures = 0, list[str]()

    def run(self, number: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self.ended.wait(0.005):
            client.request("GET", f"/api/recommendations/user-{self.answers % 60}")
            answer = client.getresponse()
            body = answer.read()
            self.answers += 1
            if answer.status != 200:
                self.failures.append(f"{answer.status} {body[:200]!r}")
        client.close()


class Progress:
    """Waits until the processes go on; the texts say while or after what."""

    def __init__(self, settings: Settings, ingest: Child, reads: Reads) -> None:
        self._settings, self._ingest, self._reads = settings, ingest, reads
        self.client = connection.connect(settings)
        self._total = 0

    def more_applied(self, after: str) -> None:
        """Wait until more events are applied, and more reads answered."""
        eventually(lambda: self._position() > self._total, f"more events applied after {after}", 60)
        self._total = self._position() + 1000
        self.more_answered(f"after {after}")

    def more_answered(self, when: str) -> None:
        """Wait until more reads are answered."""
        enough = self._reads.answers + 10
        eventually(lambda: self._reads.answers > enough, f"more reads answered {when}", 60)

    def _position(self) -> int:
        self._ingest.check()
        try:
            return sum(oracle.positions(self.client, self._settings).values())
        except RedisError:
            return 0


@contextmanager
def load(settings: Settings, spawn: Spawn, seed: int) -> Iterator[Progress]:
    """2,000 events a second and reads of the API during the block, which ingest, live worker and
    API outlive; afterwards Redis is equal to the log.
    """
    publish(settings)
    environment = settings_environment(settings)
    ingest, live, api = (
        spawn(*command, **environment)
        for command in (("streams", "ingest"), ("streams", "live"), ("api",))
    )
    port = eventually(lambda: api.alive and port_of(api.log.read_text()), "the API serves")
    with Reads(port) as reads, Traffic(settings, seed, per_burst=100) as traffic:
        progress = Progress(settings, ingest, reads)
        progress.more_applied("the start")
        yield progress
        progress.more_applied("the last fault")
    rate = traffic.sent / traffic.seconds
    print(
        f"{traffic.sent} messages in {traffic.seconds:.1f} s ({rate:.0f}/s), {reads.answers} reads"
    )
    caught_up(progress.client, settings, ingest)
    oracle.assert_equal(progress.client, settings)
    progress.client.close()
    assert reads.failures == []
    assert_alive(ingest, live, api)


def assert_alive(*children: Child) -> None:
    for child in children:
        child.check()
        assert "Traceback" not in child.log.read_text()


def is_replica(server: RedisServer) -> None:
    """Wait until a server is a replica that has the data of its primary."""

    def is_linked() -> bool:
        try:
            info = redis.info("replication")
        except RedisError:
            return False
        return info["role"] == "slave" and info["master_link_status"] == "up"

    with Redis.from_url(server.url, **server.client_options) as redis:
        eventually(is_linked, f"{server.address} is a replica", 90)


@pytest.fixture
def group(tmp_path: Path, certificates: Certificates) -> Iterator[SentinelGroup]:
    """With TLS between all of them; the matrix has sentinels without it."""
    with ExitStack() as started:
        with skipped_without_tls():
            servers = SentinelGroup(tmp_path / "group", certificates=certificates)
            started.enter_context(servers)
        yield servers


@pytest.mark.timeout(480)
def test_a_fail_over_by_sentinel_loses_no_event_and_fails_no_read(
    broker: object,
    settings: Settings,
    spawn: Spawn,
    group: SentinelGroup,
    certificates: Certificates,
    seed: int,
) -> None:
    access = {"redis_url": SecretStr(group.url), "redis_ssl_ca": certificates.ca}
    settings = settings.model_copy(update=access)
    first_sentinel = group.sentinels[0]
    with (
        Redis.from_url(first_sentinel.url, **first_sentinel.client_options) as sentinel,
        load(settings, spawn, seed) as progress,
    ):
        first, second = group.servers
        is_replica(second)
        first.kill()
        progress.more_applied("the death of the primary")
        assert sentinel.sentinel_get_master_addr_by_name(SERVICE)[1] == second.port
        first.start()
        is_replica(first)

        def is_replaced() -> bool:
            if sentinel.sentinel_get_master_addr_by_name(SERVICE)[1] == first.port:
                return True
            # refused while the sentinel does not know yet that the replica is a good one
            with suppress(ResponseError):
                sentinel.sentinel_failover(SERVICE)
            return False

        eventually(is_replaced, "the sentinel replaces the primary that lives", 90, 0.5)
        # meanwhile both take writes; those to the old one are lost, and applied again
        is_replica(second)
        progress.more_applied("the demotion of the primary under load")


@pytest.mark.timeout(480)
def test_a_fail_over_behind_a_host_name_loses_no_event_and_fails_no_read(
    broker: object, settings: Settings, spawn: Spawn, tmp_path: Path, seed: int
) -> None:
    """The old primary stays reachable by the connections that are open."""
    options = {"repl-diskless-sync-delay": "0"}
    with (
        RedisServer(tmp_path / "first", options=options) as first,
        RedisServer(
            tmp_path / "second", options={"replicaof": first.address.replace(":", " ")} | options
        ) as second,
        Proxy(first.port) as name,
        Redis.from_url(first.url) as old,
        Redis.from_url(second.url) as new,
    ):
        settings = settings.model_copy(update={"redis_url": SecretStr(f"redis://{name.address}/0")})
        is_replica(second)
        with load(settings, spawn, seed) as progress:
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", str(second.port))
            name.point_to(second.port)
            progress.more_applied("the demotion of the primary")
            is_replica(first)
            second.kill()
            old.replicaof("NO", "ONE")
            name.point_to(first.port)
            progress.more_applied("the death of the new primary")


@pytest.mark.timeout(480)
def test_a_full_redis_loses_no_event_and_fails_no_read(
    broker: object, settings: Settings, spawn: Spawn, own_redis_server: RedisServer, seed: int
) -> None:
    with (
        Redis.from_url(own_redis_server.url) as redis,
        load(settings, spawn, seed) as progress,
    ):
        redis.config_set("maxmemory", "1")
        refused = redis.info("stats")["total_error_replies"]
        eventually(
            lambda: redis.info("stats")["total_error_replies"] > refused + 2,
            "commands are refused",
        )
        progress.more_answered("while Redis is full")
        redis.config_set("maxmemory", "0")
        progress.more_applied("memory is there again")
