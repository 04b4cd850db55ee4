"""What a client can make the server hold or wait for, on real sockets of a real process.

Each limit is kept, and others are served meanwhile.
"""

from __future__ import annotations

import http.client
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psutil
import pytest
from pydantic import SecretStr

from api.server.protocol import MAX_PIPELINED
from core.settings import Settings
from testing.process import Child, settings_environment
from testing.redis import RedisServer
from tests.api.world import publish
from tests.support import eventually

CONNECTIONS, BY_ADDRESS = 24, 16
OTHER = "127.0.0.9"
"""Another address of this machine, for clients beside those at 127.0.0.1."""
ALIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /api/events HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\n"
DEADLINE_S = 60.0


@dataclass
class Server:
    """A running API; `log` of it, and how to talk to it."""

    child: Child
    port: int
    topic: str

    def connect(self, source: str = "127.0.0.1", receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(DEADLINE_S)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", self.port))
        return connection

    def read(self, path: str = "/api/popular", source: str = OTHER) -> tuple[int, bytes]:
        """An ordinary request on a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=DEADLINE_S, source_address=(source, 0)
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        found = re.search(
            rf"^{re.escape(name)} ([0-9.e+]+)$", self.read("/metrics")[1].decode(), re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    def refused(self, limit: str) -> float:
        return self.metric(f'eddyline_api_refused_total{{limit="{limit}"}}')

    def quiet(self) -> None:
        """Wait until the connections of earlier tests are gone: only the one that asks is left."""
        eventually(lambda: self.metric("eddyline_api_connections") == 1, "no connection is open")


def start(settings: Settings, limit: str = "-S -n 64") -> Server:
    """`python -m api` under `ulimit <limit>`, once it serves."""
    command = ["bash", "-c", f'ulimit {limit}; exec "$0" "$@"', sys.executable, "-m", "api"]
    child = Child("api", command, settings.models_path, settings_environment(settings)).start()

    def port() -> int | None:
        child.check()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", child.log.read_text())
        return int(found[1]) if found else None

    server = Server(child, eventually(port, "the API serves"), settings.interactions_topic)
    assert server.read("/health/live") == (200, b'{"alive":true}')
    return server


def limits(
    redis: RedisServer, tmp_path_factory: pytest.TempPathFactory, **changed: object
) -> Settings:
    return Settings(
        _env_file=None,
        kafka_bootstrap_servers="127.0.0.1:9",
        redis_url=SecretStr(redis.url),
        models_path=tmp_path_factory.mktemp("limits"),
        api_port=0,
        api_keys="k",
        enable_two_tower=False,
        **changed,
    )


@pytest.fixture(scope="module")
def server(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process with limits that a test can reach; the tests of this module share it."""
    settings = limits(
        redis_server,
        tmp_path_factory,
        api_max_head_bytes=4096,
        api_max_headers=20,
        api_head_timeout_s=1,
        api_idle_timeout_s=2,
        api_write_timeout_s=1,
        api_timeout_s=2,
        api_after_s=1.7,
        api_max_connections=CONNECTIONS,
        api_max_connections_per_address=BY_ADDRESS,
        api_max_body_bytes=100_000,
    )
    publish(settings)
    running = start(settings)
    yield running
    running.child.stop()
    assert "Traceback" not in running.child.log.read_text()


def received(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection. A reset counts as closed."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def statuses(answers: bytes | bytearray) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def send_until_refused(connection: socket.socket, beginning: bytes, part: bytes, most: int) -> int:
    """Send `beginning` and then `part` again and again; the bytes that went out before the server
    closed, `most` of them.
    """
    sent = 0
    try:
        connection.sendall(beginning)
        while sent < most:
            connection.sendall(part)
            sent += len(part)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


@pytest.mark.parametrize(
    ("beginning", "part", "status"),
    [
        (b"GET /api/popular HTTP/1.1\r\nHost: x\r\nX-Long: ", b"a" * 65536, 431),
        (b"GET /api/popular?", b"a" * 65536, 414),
        (b"GET /api/popular HTTP/1.1\r\nHost: x\r\n", b"X-Many: a\r\n" * 4096, 431),
        (b"GET /api/popular HTTP/1.1\r\nHost: x\r\n", b"a" * 65536, 431),
        (b"", b"\r\n" * 32768, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ", b"a" * 65536, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;a=", b"a" * 65536, 400),
    ],
    ids=[
        "header value",
        "target",
        "headers",
        "header name",
        "empty lines",
        "trailer",
        "chunk extension",
    ],
)
def test_a_head_without_end_is_refused_after_its_limit_and_costs_no_memory(
    server: Server, beginning: bytes, part: bytes, status: int
) -> None:
    process = psutil.Process(server.child.pid)
    before = process.memory_info().rss
    with server.connect() as connection:
        sent = send_until_refused(connection, beginning, part, 60 << 20)
        assert server.read()[0] == 200
        answers = received(connection)
    assert sent < 60 << 20, "the server read all of it"
    assert statuses(answers) in ([status], []), (
        "refused, or reset because the client did not stop sending"
    )
    assert process.memory_info().rss - before < 16 << 20
    assert server.read()[0] == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /api/popular HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 5000 + b"\r\n\r\n", 431),
        (b"GET /api/popular HTTP/1.1\r\nHost: x\r\n" + b"X-Many: a\r\n" * 30 + b"\r\n", 431),
        (b"GET /api/popular?" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ],
    ids=["header value", "headers", "target"],
)
def test_a_whole_head_over_the_limit_gets_an_answer_that_names_the_setting(
    server: Server, head: bytes, status: int
) -> None:
    with server.connect() as connection:
        connection.sendall(head)
        answer = received(connection)
    assert statuses(answer) == [status]
    assert b"API_MAX_HEAD" in answer
    assert b"connection: close" in answer


def test_a_head_that_arrives_byte_by_byte_gets_408_and_ordinary_reads_go_on(server: Server) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(10)]
        for connection in slow:
            connection.sendall(b"GET /api/popular HTTP/1.1\r\nHost: ")
        ended: set[socket.socket] = set()
        deadline = time.monotonic() + DEADLINE_S
        while len(ended) < len(slow) and time.monotonic() < deadline:
            assert server.read()[0] == 200
            for connection in set(slow) - ended:
                try:
                    connection.sendall(b"x")
                except (BrokenPipeError, ConnectionResetError):
                    ended.add(connection)
            time.sleep(0.1)  # a byte in ten tenths of the time that a whole head has
        assert len(ended) == len(slow)
    assert server.refused("head_timeout") >= len(slow)


def test_connections_that_send_nothing_are_closed_before_and_after_an_answer(
    server: Server,
) -> None:
    with server.connect() as silent, server.connect() as used:
        used.sendall(ALIVE)
        assert received(silent) == b""
        assert statuses(received(used)) == [200]
    assert server.read()[0] == 200


def test_a_body_that_does_not_arrive_gets_408_and_after_a_refusal_the_connection_is_closed(
    server: Server,
) -> None:
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        assert server.read()[0] == 200
        assert statuses(received(connection)) == [408]
    with server.connect() as connection:  # refused before its body was read, which then never comes
        connection.sendall(b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert statuses(received(connection)) == [401]


def test_a_client_that_sends_a_body_over_the_limit_can_read_its_413(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: 500000\r\n\r\n" + b" " * 500_000)
        assert statuses(received(connection)) == [413]


def test_idle_connections_at_the_limit_make_room_for_new_ones(server: Server) -> None:
    server.quiet()
    with ExitStack() as stack:
        idle = [
            stack.enter_context(server.connect(f"127.0.0.{20 + number % 4}"))
            for number in range(3 * CONNECTIONS // 2)
        ]
        half = [
            stack.enter_context(server.connect(f"127.0.0.{30 + number % 4}"))
            for number in range(CONNECTIONS)
        ]
        for connection in half:
            connection.sendall(b"GET / HT")
        for _ in range(10):
            assert server.read()[0] == 200
        assert server.metric("eddyline_api_connections") <= CONNECTIONS
        assert received(idle[0]) == b"", "the one that waited longest is closed first"
    assert server.refused("connections_in_all") >= 3 * CONNECTIONS // 2


def test_with_every_connection_at_work_a_new_one_gets_503_and_the_others_their_answers(
    server: Server,
) -> None:
    server.quiet()
    waiting = f"GET /api/users/1?after={server.topic}:0:99999 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with ExitStack() as stack:
        busy = [
            stack.enter_context(server.connect(f"127.0.0.{20 + number % 4}"))
            for number in range(CONNECTIONS)
        ]
        for connection in busy:
            connection.sendall(waiting)

        def refusal() -> bytes | None:
            with server.connect() as late:
                late.sendall(ALIVE)
                answer = received(late)
                return answer if statuses(answer) == [503] else None

        answer = eventually(refusal, "a connection is refused")
        assert b"retry-after: 1" in answer
        for connection in busy:
            assert statuses(connection.recv(65536)) == [200]
        assert server.read()[0] == 200


def test_one_address_cannot_hold_all_connections(server: Server) -> None:
    server.quiet()
    with ExitStack() as stack:
        for _ in range(BY_ADDRESS):
            stack.enter_context(server.connect())
        assert server.read()[0] == 200, "from another address"
        with server.connect() as late:
            assert statuses(received(late)) == [429]


def test_pipelined_requests_are_answered_in_order_up_to_their_limit(server: Server) -> None:
    paths = [b"/health/live", b"/health/ready", b"/nothing"]
    with server.connect() as connection:
        connection.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths))
        answers = b""
        while len(statuses(answers)) < 3:
            answers += connection.recv(65536)
        assert statuses(answers) == [200, 200, 404]
        connection.sendall(ALIVE * 10_000)
        answers = received(connection)
    assert statuses(answers) == [200] * (1 + MAX_PIPELINED)
    assert answers.count(b"connection: close") == 1


def test_a_bad_request_behind_good_ones_is_answered_after_them(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(ALIVE * 3 + b"NONSENSE\r\n\r\n")
        assert statuses(received(connection)) == [200, 200, 200, 400]
    with server.connect() as connection:  # broken within the body of the second
        connection.sendall(ALIVE + POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert statuses(received(connection)) == [200, 400]


def fill(server: Server, connection: socket.socket, requests: int, patience_s: float) -> int:
    """Ask for 60 KB `requests` times at once, again and again, until no answers are made for
    `patience_s`; the number of requests.
    """
    answered = 'eddyline_api_requests_total{method="GET",route="none",status="200"}'
    before, sent = server.metric(answered), 0
    while True:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * requests)
        sent += requests
        deadline = time.monotonic() + patience_s
        while server.metric(answered) < before + sent:
            if time.monotonic() > deadline:
                return sent


def test_clients_that_do_not_read_are_closed_and_ordinary_reads_go_on(server: Server) -> None:
    server.quiet()
    before = server.refused("write_timeout")
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(server.connect()).sendall(ALIVE * 5000)
        fill(server, stack.enter_context(server.connect(receive_buffer=4096)), 1, 2.0)
        eventually(
            lambda: server.refused("write_timeout") == before + 1,
            "the connection that does not read is closed",
        )
        assert server.read()[0] == 200
    server.quiet()


def test_a_client_that_reads_late_gets_every_answer(server: Server) -> None:
    with server.connect(receive_buffer=4096) as connection:
        # now the buffers are full, in the middle of ten pipelined requests
        sent = fill(server, connection, 10, 0.3)
        answers = bytearray()
        while len(statuses(answers)) < sent:
            part = connection.recv(1 << 20)
            assert part, f"closed after {len(statuses(answers))} of {sent} answers"
            answers += part
    assert statuses(answers) == [200] * sent


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health/live HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x/y\r\n\r\n",
        b"GET http://other/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health/live#part HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-API-Key: a\r\nX-API-Key: b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\nX-Line: feed\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\rX-Carriage: return\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Null: a\0b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost : x\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        POST + b"Content-Length: 2, 2\r\n\r\n{}",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Content-Length: 0x2\r\n\r\n{}",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
    ],
    ids=lambda request: repr(request[:110].replace(POST, b""))[2:-1],
)
def test_what_two_servers_could_read_as_different_requests_gets_400_and_nothing_after_it_is_answered(
    server: Server, request_: bytes
) -> None:
    with server.connect() as connection:
        connection.sendall(request_ + ALIVE)
        assert statuses(received(connection)) == [400]


@pytest.mark.parametrize(
    "target", [b"/health/live", b"http://x/health/live", b"HTTP://X/health/live"]
)
def test_a_target_in_origin_form_or_with_the_same_host_is_served(
    server: Server, target: bytes
) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
        assert statuses(received(connection)) == [200]


def test_a_request_to_upgrade_is_answered_as_it_is_and_nothing_after_it(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            ALIVE[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + ALIVE
        )
        answer = received(connection)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer


def test_an_evicted_or_refused_connection_leaves_no_file_open(server: Server) -> None:
    server.quiet()
    process = psutil.Process(server.child.pid)
    before = process.num_fds()
    for _ in range(100):
        with server.connect() as connection:
            connection.sendall(b"NONSENSE\r\n\r\n")
    server.quiet()
    eventually(lambda: process.num_fds() <= before + 2, "their files are closed")


def test_the_limit_of_open_files_is_raised_as_far_as_connections_need_it(server: Server) -> None:
    soft, _ = psutil.Process(server.child.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft >= CONNECTIONS + 64, "it was started with 64"


def test_under_a_hard_limit_of_open_files_fewer_connections_are_held_and_nobody_is_locked_out(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    running = start(limits(redis_server, tmp_path_factory), "-n 256")
    try:
        assert "connection_limit_lowered" in running.child.log.read_text()
        with ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(running.connect())
            for _ in range(10):
                assert running.read("/health/live")[0] == 200
    finally:
        running.child.stop()
