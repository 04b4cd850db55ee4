"""SIGTERM ends every process with exit code 0 in time, whether its servers answer or not."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import threading

import httpx
import pytest
from redis import Redis

from core.settings import Settings
from store.log import client as log
from store.log.producer import Producer
from testing.process import Child
from testing.redis import RedisServer
from testing.tansu import TansuBroker
from tests.api.world import publish
from tests.conftest import Spawn
from tests.live.world import event
from tests.support import Background, eventually

GRACE_S = 30.0
"""`stop_grace_period` of the processes in docker-compose.yml; a stop takes about three seconds."""
PROCESSES = {
    "ingest": (("streams", "ingest"), "partition_assigned"),
    "archive": (("streams", "archive"), "partitions_assigned"),
    "worker": (("training", "worker"), "waiting_for_requests"),
    "live": (("streams", "live"), "als_part_loaded"),
    "api": (("api",), "api_started"),
}


def _running(spawn: Spawn, names: list[str]) -> dict[str, Child]:
    children = {name: spawn(*PROCESSES[name][0]) for name in names}
    for name, child in children.items():
        eventually(
            lambda name=name, child=child: PROCESSES[name][1] in child.log.read_text(),
            f"{name} is at work",
            60,
        )  # type: ignore[misc]
    return children


def _stop(children: dict[str, Child]) -> dict[str, int]:
    for child in children.values():
        child.signal(signal.SIGTERM)
    return {name: child.wait(GRACE_S) for name, child in children.items()}


@pytest.mark.parametrize("broker_dies", [False, True])
def test_sigterm_ends_every_process_with_success(
    settings: Settings, redis: Redis, spawn: Spawn, own_broker: TansuBroker, broker_dies: bool
) -> None:
    publish(settings)
    log.ensure_topics(settings)
    children = _running(spawn, list(PROCESSES))
    if broker_dies:
        own_broker.kill()
    assert _stop(children) == dict.fromkeys(children, 0)


class _Requests(Background):
    """Sends reads from several threads, without pauses, until the API has ended."""

    def __init__(self, port: int) -> None:
        super().__init__(threads=4)
        self.port, self.statuses, self.lock = port, list[int](), threading.Lock()

    def run(self, number: int) -> None:
        while not self.ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request("GET", f"/api/recommendations/startups/for-developer/{number}")
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return  # it accepts no more connections
            finally:
                connection.close()
            with self.lock:
                self.statuses.append(status)


def test_the_api_ends_with_success_under_load_and_with_open_connections(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    publish(settings)
    api = _running(spawn, ["api"])["api"]
    port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", api.log.read_text())[0])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    half = socket.create_connection(("127.0.0.1", port))
    half.sendall(b"POST /api/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    with _Requests(port) as requests:
        eventually(lambda: len(requests.statuses) > 50, "reads are answered")
        api.signal(signal.SIGTERM)
        assert api.wait(GRACE_S) == 0
    assert set(requests.statuses) == {200}
    for connection in [*idle, half]:
        connection.close()


def test_processes_end_while_kafka_and_redis_accept_connections_and_answer_nothing(
    settings: Settings, own_redis_server: RedisServer, own_broker: TansuBroker, spawn: Spawn
) -> None:
    """The client library then waits without a limit to leave its group."""
    publish(settings)
    log.ensure_topics(settings)
    children = _running(spawn, list(PROCESSES))
    with Producer(settings) as producer:
        for number in range(200):
            producer.interaction(event(f"user-{number}", "pay"))
    servers = (own_redis_server, own_broker)
    for server in servers:
        server.child.signal(signal.SIGSTOP)
    try:
        assert _stop(children) == dict.fromkeys(children, 0)
    finally:
        for server in servers:
            server.child.signal(signal.SIGCONT)


def test_the_api_ends_while_its_page_waits_for_a_redis_that_answers_nothing(
    settings: Settings, own_redis_server: RedisServer, broker: object, spawn: Spawn
) -> None:
    publish(settings)
    api = spawn("api", REDIS_TIMEOUT_S="300")
    port = eventually(
        lambda: re.findall(r"http://127\.0\.0\.1:(\d+)", api.log.read_text()), "it serves", 60
    )[0]
    with httpx.stream("GET", f"http://127.0.0.1:{port}/api/live", timeout=30) as answer:
        samples = (line for line in answer.iter_lines() if line.startswith("data: "))
        next(samples)
        own_redis_server.child.signal(signal.SIGSTOP)
        try:
            for _ in range(3):  # one a second, each of which asks Redis
                next(samples)
            assert _stop({"api": api}) == {"api": 0}
        finally:
            own_redis_server.child.signal(signal.SIGCONT)
    assert "stop_forced" in api.log.read_text()
