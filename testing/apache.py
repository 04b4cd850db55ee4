"""Runs Apache Kafka on loopback, where KAFKA_HOME and `java` are there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ProcessFailed
from testing.ports import HOST, free_port
from testing.server import START_S, Broker

CLUSTER_ID = "ZWRkeWxpbmUtZWRkeWxpbg"
"""KRaft requires 22 characters of base64url; a cluster of one node may use a constant."""

KAFKA_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
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


class KafkaBroker(Broker):
    """Apache Kafka (KRaft, one node), run by `java` on PATH; its log survives stop, kill and start.

    `home` None: the folder in KAFKA_HOME. `properties` override KAFKA_PROPERTIES. The heap is
    KAFKA_HEAP (512m).
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
        self._jvm_options: tuple[str, ...] = ()

    @property
    def listeners(self) -> Mapping[str, str]:
        """Security protocol -> host:port at which clients reach the broker."""
        return {"PLAINTEXT": self.address}

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
        listeners = ",".join(f"{protocol}://{at}" for protocol, at in self.listeners.items())
        properties = {
            **KAFKA_PROPERTIES,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
            + ",".join(f"{protocol}:{protocol}" for protocol in self.listeners),
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": f"{listeners},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": listeners,
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
            *self._jvm_options,
            "-cp",
            f"{home}/libs/*",
        ]
        if not (self.directory / "log" / "meta.properties").exists():
            self._format(
                [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(file)]
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


def kafka_home() -> Path | None:
    """The folder in KAFKA_HOME when it holds Kafka's jars and java is on PATH."""
    text = os.environ.get("KAFKA_HOME", "").strip()
    if not text or shutil.which("java") is None or not any(Path(text).glob("libs/kafka*.jar")):
        return None
    return Path(text).absolute()
