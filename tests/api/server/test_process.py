"""The process `python -m api`: its log, its port, and its limits on a real socket."""

from __future__ import annotations

import http.client
import json
import socket

import pytest

from core.settings import Settings
from tests.api.world import KEY, event, port_of, publish
from tests.conftest import Spawn
from tests.support import eventually


@pytest.mark.process
def test_the_process_logs_what_it_serves_and_limits_requests_on_a_real_socket(
    settings: Settings, redis: object, broker: object, spawn: Spawn
) -> None:
    version = publish(settings)
    child = spawn("api", API_KEYS=KEY, API_TIMEOUT_S="1", LOG_LEVEL="debug")
    port = eventually(lambda: child.alive and port_of(child.log.read_text()), "the API serves")
    eventually(lambda: "api_started" in child.log.read_text(), "it has started")
    started = next(
        json.loads(line) for line in child.log.read_text().splitlines() if "api_started" in line
    )
    assert started["routing"] == "content_based < 5 <= als < 20 <= ensemble"
    assert (started["models"], started["model_version"]) == (["als", "content", "popular"], version)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/api/recommendations/startups/for-developer/a%2Fb%20c")
    answer = json.load(connection.getresponse())
    assert (answer["user_id"], answer["method_used"]) == ("a/b c", "popular")
    read = eventually(
        lambda: [
            json.loads(line)
            for line in child.log.read_text().splitlines()
            if '"recommended"' in line
        ],
        "a debug line a read",
    )
    assert (len(read), read[0]["user_id"], read[0]["interactions"], read[0]["engine"]) == (
        1,
        "a/b c",
        0,
        "popular",
    )
    assert "content_based < 5" in read[0]["why"]

    def posted() -> bytes:
        connection.request("POST", "/api/events", json.dumps(event()), {"x-api-key": KEY})
        return connection.getresponse().read()

    # Within its second a broker that has just made the topic may not answer yet; the API says so,
    # and its caller sends again.
    eventually(lambda: posted().count(b"token") == 1, "the event accepted")
    with socket.create_connection(("127.0.0.1", port), 30) as slow:  # a body that never comes
        slow.sendall(
            b"POST /api/events HTTP/1.1\r\nhost: x\r\nx-api-key: "
            + KEY.encode()
            + b"\r\ncontent-length: 100\r\n\r\n{"
        )
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
    with socket.create_connection(("127.0.0.1", port), 30) as raw:
        raw.sendall(
            b"POST /api/events HTTP/1.1\r\nhost: x\r\nx-api-key: "
            + KEY.encode()
            + b"\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"100000\r\n"
            + b" " * 0x100000
            + b"\r\n10\r\n"
            + b" " * 16
            + b"\r\n0\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")
    connection.close()
    child.stop()
    assert "Traceback" not in child.log.read_text()


def test_an_address_in_use_ends_the_start_with_one_line(
    settings: Settings, redis: object, spawn: Spawn
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = spawn("api", API_PORT=str(listener.getsockname()[1]))
        assert child.wait(60) == 1
    assert child.log.read_text().strip().startswith("error: cannot listen on 127.0.0.1:")
    assert len(child.log.read_text().strip().splitlines()) == 1
