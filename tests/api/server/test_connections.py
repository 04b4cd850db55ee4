"""Connections: how long the server waits for a client, and how many it holds.

On real sockets of a real process; ordinary reads go on meanwhile.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import psutil
import pytest

from testing.redis import RedisServer
from tests.api.server.limited_server import (
    ALIVE,
    BY_ADDRESS,
    CONNECTIONS,
    DEADLINE_S,
    POST,
    Server,
    limits,
    received,
    start,
    statuses,
)
from tests.support import eventually


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


def test_idle_connections_are_closed_before_the_first_request_and_after_an_answer(
    server: Server,
) -> None:
    with server.connect() as silent, server.connect() as used:
        used.sendall(ALIVE)
        assert received(silent) == b""
        assert statuses(received(used)) == [200]
    assert server.read()[0] == 200


def test_a_body_that_does_not_arrive_gets_408_and_a_refused_one_closes_the_connection(
    server: Server,
) -> None:
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        assert server.read()[0] == 200
        assert statuses(received(connection)) == [408]
    with server.connect() as connection:  # refused before its body was read, which then never comes
        connection.sendall(b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert statuses(received(connection)) == [401]


def test_at_the_limit_the_longest_idle_connection_is_closed_for_a_new_one(server: Server) -> None:
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


def test_with_every_connection_busy_a_new_one_gets_503_and_the_others_their_answers(
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


def test_one_address_cannot_use_all_connections(server: Server) -> None:
    server.quiet()
    with ExitStack() as stack:
        for _ in range(BY_ADDRESS):
            stack.enter_context(server.connect())
        assert server.read()[0] == 200, "from another address"
        with server.connect() as late:
            assert statuses(received(late)) == [429]


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


def test_a_client_that_does_not_read_is_closed_and_ordinary_reads_go_on(server: Server) -> None:
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


def test_an_evicted_or_refused_connection_leaves_no_file_open(server: Server) -> None:
    server.quiet()
    process = psutil.Process(server.child.pid)
    before = process.num_fds()
    for _ in range(100):
        with server.connect() as connection:
            connection.sendall(b"NONSENSE\r\n\r\n")
    server.quiet()
    eventually(lambda: process.num_fds() <= before + 2, "their files are closed")


def test_the_soft_limit_of_open_files_is_raised_to_what_the_connections_need(
    server: Server,
) -> None:
    soft, _ = psutil.Process(server.child.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft >= CONNECTIONS + 64, "it was started with 64"


def test_a_hard_limit_of_open_files_lowers_the_number_of_connections(
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


def test_a_page_that_does_not_read_what_happens_now_is_closed(server: Server) -> None:
    before = server.refused("write_timeout")
    with server.connect(receive_buffer=2048) as connection:
        connection.sendall(b"GET /api/live HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(
            lambda: server.refused("write_timeout") == before + 1,
            "the stream is closed",
            timeout=60,
        )
