"""Several processes at one port, the end of a process, and addresses of IPv6."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from models.registry import Registry
from testing.process import Child
from testing.redis import RedisServer
from tests.api.server.limited_server import (
    DEADLINE_S,
    Server,
    launch,
    limits,
    received,
    start,
    statuses,
)
from tests.api.world import publish
from tests.support import eventually

WORKERS = 3


@pytest.fixture
def server(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = limits(
        redis_server, tmp_path_factory, api_workers=WORKERS, api_after_s=2.0, api_timeout_s=20.0
    )
    publish(settings)
    running = start(settings)
    yield running
    running.child.stop()


def workers(child: Child) -> list[psutil.Process]:
    return psutil.Process(child.pid).children()


def workers_in_metrics(server: Server) -> set[str]:
    return set(re.findall(r'worker="(\d)"', server.read("/metrics")[1].decode()))


def answers_under_way(server: Server, count: int) -> list[socket.socket]:
    """Connections with a read that waits for an event that does not come."""
    target = f"/api/users/1?after={server.topic}:0:99999"
    connections = []
    for _ in range(count):
        connections.append(server.connect())
        connections[-1].sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connections


def wait_until_busy(server: Server, count: int) -> None:
    """Wait until `count` connections besides that of /metrics are open in all workers."""

    def opened() -> float:
        text = server.read("/metrics")[1].decode()
        counts = re.findall(r"^eddyline_api_connections(?:\{.*\})? ([0-9.]+)$", text, re.MULTILINE)
        return sum(map(float, counts)) - 1

    eventually(lambda: opened() >= count, f"{count} connections are open")


def test_workers_share_the_port_and_a_dead_one_is_replaced(server: Server) -> None:
    eventually(lambda: len(workers_in_metrics(server)) == WORKERS, "every worker serves")
    assert workers_in_metrics(server) == {"0", "1", "2"}
    assert 'eddyline_api_model_loaded{version="' in server.read("/metrics")[1].decode()
    before = {worker.pid for worker in workers(server.child)}
    victim = workers(server.child)[0]
    victim.kill()
    eventually(
        lambda: len({worker.pid for worker in workers(server.child)} - before) == 1,
        "another worker is started",
    )
    eventually(lambda: len(workers_in_metrics(server)) == WORKERS, "it serves")
    assert server.read("/api/popular")[0] == 200


def test_workers_share_the_arrays_of_a_bundle_also_after_it_was_removed(server: Server) -> None:
    eventually(lambda: len(workers_in_metrics(server)) == WORKERS, "every worker serves")
    files = {"als/item_factors.npy", "content/item_vectors.npz"}
    eventually(
        lambda: [mapped(worker) & files for worker in workers(server.child)] == [files] * WORKERS,
        "every worker maps the bundle",
    )
    registry = Registry(server.child.directory)
    before = eventually(lambda: similar_items(server), "every worker knows that Kafka is away")
    shutil.rmtree(registry.path / str(registry.current()))
    assert similar_items(server) == before
    assert [mapped(worker) & files for worker in workers(server.child)] == [set()] * WORKERS


def mapped(worker: psutil.Process) -> set[str]:
    """The ends of the names of all files of a bundle that a worker maps and has not written to."""
    name, files = "", set()
    for line in Path(f"/proc/{worker.pid}/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-", line):
            name = "/".join(line.split("/")[-2:])
        elif line.split() == ["Private_Dirty:", "0", "kB"]:
            files.add(name)
    return files


def similar_items(server: Server) -> bytes:
    """What all workers answer, on many connections, by the factors and by the content.

    Empty until the workers answer alike: each finds out by itself that Kafka is away.
    """
    answers = {
        server.read(f"/api/items/{item_id}/similar")[1]
        for item_id in ("pay", "pill")
        for _ in range(10 * WORKERS)
    }
    if len(answers) != 2 or not all(b'"degraded":true' in answer for answer in answers):
        return b""
    return b"".join(sorted(answers))


def test_sigterm_ends_all_workers_after_the_answers_under_way(server: Server) -> None:
    eventually(lambda: len(workers_in_metrics(server)) == WORKERS, "every worker serves")
    connections = answers_under_way(server, 12)
    wait_until_busy(server, 12)
    processes = workers(server.child)
    server.child.signal(signal.SIGTERM)
    for connection in connections:
        with connection:
            assert statuses(received(connection)) == [200]
    assert server.child.wait(DEADLINE_S) == 0
    assert not any(process.is_running() for process in processes)


def test_workers_end_with_a_supervisor_that_is_killed(server: Server) -> None:
    eventually(lambda: len(workers_in_metrics(server)) == WORKERS, "every worker serves")
    processes = workers(server.child)
    server.child.signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, DEADLINE_S)
    assert not alive


def test_a_single_process_answers_what_is_under_way_and_ends_with_0(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = limits(redis_server, tmp_path_factory, api_after_s=2.0, api_timeout_s=20.0)
    server = start(settings)
    with server.connect() as idle:
        connections = answers_under_way(server, 4)
        wait_until_busy(server, 5)
        server.child.signal(signal.SIGTERM)
        for connection in connections:
            with connection:
                assert statuses(received(connection)) == [200]
        assert received(idle) == b"", "an idle connection does not hold the process"
    assert server.child.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(("host", "clients"), [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"])])
def test_it_serves_at_an_address_of_ipv6(
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
    host: str,
    clients: list[str],
) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    settings = limits(redis_server, tmp_path_factory, api_host=host)
    child = launch(settings)
    address = eventually(
        lambda: re.search(r"http://\[([^\]]+)\]:(\d+)", child.log.read_text()), "it serves"
    )
    assert address[1] == host
    for client in clients:
        connection = HTTPConnection(client, int(address[2]), timeout=DEADLINE_S)
        connection.request("GET", "/health/live")
        assert json.load(connection.getresponse()) == {"alive": True}
        connection.close()
    child.stop()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_page_sees_the_reads_of_all_workers_and_its_stream_ends_with_the_server(
    server: Server,
) -> None:
    eventually(lambda: len(workers_in_metrics(server)) == WORKERS, "every worker serves")
    connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.request("GET", "/api/live")
    stream = connection.getresponse()
    assert json.loads(stream.readline().removeprefix(b"data: "))["answers"]["by_engine"] == {}
    busy = answers_under_way(server, WORKERS)  # so that one worker does not take all the reads
    for _ in range(20):
        assert server.read("/api/recommendations/1")[0] == 200
    by_engine: dict[str, int] = {}
    while sum(by_engine.values()) < 20:
        line = stream.readline()
        if line.startswith(b"data: "):
            by_engine = json.loads(line.removeprefix(b"data: "))["answers"]["by_engine"]
    assert by_engine == {"popular": 20}
    for waiting in busy:
        waiting.close()
    server.child.stop()
    assert server.child.exit_code == 0
    assert stream.read().endswith(b"\n"), "a stream that is cut off raises IncompleteRead"
    stream.close()
    connection.close()
