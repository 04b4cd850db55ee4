"""Requests that the HTTP server refuses: too large, or read differently by two servers.

On real sockets of a real process; ordinary reads go on meanwhile.
"""

from __future__ import annotations

import socket

import psutil
import pytest

from api.server.protocol import MAX_PIPELINED
from tests.api.server.limited_server import (
    ALIVE,
    POST,
    Server,
    received,
    statuses,
)


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
def test_an_endless_head_is_refused_at_its_limit_and_costs_no_memory(
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
def test_a_complete_head_over_the_limit_gets_an_answer_that_names_the_setting(
    server: Server, head: bytes, status: int
) -> None:
    with server.connect() as connection:
        connection.sendall(head)
        answer = received(connection)
    assert statuses(answer) == [status]
    assert b"API_MAX_HEAD" in answer
    assert b"connection: close" in answer


def test_a_client_that_sends_a_body_over_the_limit_can_read_its_413(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: 500000\r\n\r\n" + b" " * 500_000)
        assert statuses(received(connection)) == [413]


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


def test_an_invalid_pipelined_request_is_answered_after_the_valid_ones_before_it(
    server: Server,
) -> None:
    with server.connect() as connection:
        connection.sendall(ALIVE * 3 + b"NONSENSE\r\n\r\n")
        assert statuses(received(connection)) == [200, 200, 200, 400]
    with server.connect() as connection:  # broken within the body of the second
        connection.sendall(ALIVE + POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert statuses(received(connection)) == [200, 400]


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
def test_an_ambiguous_request_gets_400_and_closes_the_connection(
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


def test_an_upgrade_request_is_answered_over_http_1_1_and_closes_the_connection(
    server: Server,
) -> None:
    with server.connect() as connection:
        connection.sendall(
            ALIVE[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + ALIVE
        )
        answer = received(connection)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
