"""Starts and stops the parts of a demo: folder, settings, two servers, processes of other rooms."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pydantic import SecretStr

from core.errors import ProcessFailed
from core.settings import Settings
from testing.brokers import broker, broker_kinds
from testing.ports import HOST, free_port, port_is_free
from testing.process import Child, end_leftovers, module, settings_environment
from testing.redis import RedisServer
from testing.server import Server

PREFIX = "eddyline-demo-"
"""Begins the names of the demo's topics and groups on servers that are not its own."""
SHARED_NAMES = (
    *("interactions_topic", "items_topic", "users_topic"),
    *("model_updates_topic", "retrain_requests_topic"),
    *("ingest_group", "archive_group", "live_group", "trainer_group"),
)
"""The settings that name what others may have on the same broker."""
READY_S = 60.0
"""Seconds until a process of ours must answer: its imports take several on a busy machine."""


class Servers(StrEnum):
    """Where the Kafka and the Redis of the demo come from."""

    embedded = "embedded"
    environment = "environment"


class Stack:
    """Everything that runs, in the order of its start; it stops in the opposite order.

    A broker or a Redis that `configured` names is used, under topics and groups whose names begin
    with PREFIX; the rest is embedded. `configured` is settings.defaults() unless the user wants
    the servers of the environment.
    """

    def __init__(self, directory: Path, configured: Settings) -> None:
        self.directory, self._configured = directory, configured
        self.settings = configured
        self.metrics_port = 0
        """Where ingest serves its /metrics."""
        self.servers: list[Server] = []
        self.children: list[Child] = []
        self._lock: IO[str] | None = None

    @property
    def external(self) -> list[str]:
        """The servers that `configured` names: REDIS_URL, KAFKA_BOOTSTRAP_SERVERS."""
        return [
            name.upper()
            for name in ("kafka_bootstrap_servers", "redis_url")
            if name in self._configured.model_fields_set
        ]

    def __enter__(self) -> Self:
        """Lock the folder and clear the files of an earlier run.

        Raises ProcessFailed when another demo has locked it, and for a folder with other files.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if any(self.directory.iterdir()) and not (self.directory / "lock").is_file():
            raise ProcessFailed(
                f"{self.directory} holds files that no demo wrote, and the demo clears its folder; "
                "name an empty or a new one with --folder"
            )
        self._lock = (self.directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ProcessFailed(
                f"another demo is running in {self.directory}; end that one first"
            ) from None
        end_leftovers(self.directory)
        for entry in self.directory.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in reversed(self.children):
            child.stop()
        for server in reversed(self.servers):
            server.stop()
        if self._lock is not None:
            self._lock.close()

    def start_servers(self) -> str:
        """Start the servers that `configured` does not name, and complete the settings.

        Returns a text that says what runs where.
        """
        changes = self._own_settings()
        servers = []
        if "KAFKA_BOOTSTRAP_SERVERS" not in self.external:
            log = broker(self.directory / "broker")
            self.servers.append(log)
            changes["kafka_bootstrap_servers"] = log.start().address
            apache = broker_kinds()[0] == "apache"
            kind = "Apache Kafka" if apache else "Tansu (a Kafka-protocol broker)"
            servers.append(f"{kind} on {log.address}")
        else:
            servers.append(f"the Kafka at {self._configured.kafka_bootstrap_servers}")
        if "REDIS_URL" not in self.external:
            redis = RedisServer(self.directory / "redis")
            self.servers.append(redis)
            changes["redis_url"] = SecretStr(redis.start().url)
            servers.append(f"Redis on {redis.address}")
        else:
            servers.append("the Redis of REDIS_URL")
        self.settings = self._configured.model_copy(update=changes)
        self._write_environment(changes)
        return ", ".join(servers)

    def start(self, name: str, *arguments: str, label: str, **environment: str) -> Child:
        """Start `python -m <name> <arguments>` and leave it running.

        Its log is `<label>.log` in the folder `logs`.
        """
        child = self._module(name, *arguments, label=label, **environment)
        self.children.append(child)
        return child.start()

    def run(
        self,
        name: str,
        *arguments: str,
        label: str,
        show: Callable[[str], None],
        timeout: float = 600.0,
    ) -> None:
        """Run `python -m <name> <arguments>` to its end, and check the other processes meanwhile.

        `show` gets each line that it prints for people. Raises ProcessFailed unless it exits with
        0.
        """
        child = self._module(name, *arguments, label=label)
        self.children.append(child)
        child.start()

        def ended() -> bool:
            if not (line := child.tail(1)).startswith("{"):
                show(line)
            return not child.alive

        self.until(ended, f"{label} to end", timeout, besides=child)
        self.children.remove(child)
        if child.exit_code:
            raise ProcessFailed(child.describe("failed"))
        child.wait(0)

    def until(
        self,
        condition: Callable[[], bool],
        what: str,
        timeout: float = READY_S,
        besides: Child | None = None,
    ) -> None:
        """Wait for `condition`.

        Raises ProcessFailed when a process dies meanwhile, or after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            self.check(besides)
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"waited {timeout:g} s for {what}; the logs are in {self.directory / 'logs'}"
                )
            time.sleep(0.05)

    def watch(self, seconds: float) -> None:
        """Wait for so many seconds. Raises ProcessFailed as soon as a process dies."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(0.1)

    def check(self, besides: Child | None = None) -> None:
        """Raises ProcessFailed when a server or a process has died."""
        for child in [*(server.child for server in self.servers), *self.children]:
            if child is not besides:
                child.check()

    def _module(self, name: str, *arguments: str, label: str, **environment: str) -> Child:
        everything = {**settings_environment(self.settings), **environment}
        return module(
            name, *arguments, directory=self.directory / "logs", environment=everything, label=label
        )

    def _own_settings(self) -> dict[str, Any]:
        configured = self._configured
        prefix = PREFIX if self.external else ""
        if len(self.external) == 1:
            # The embedded one of the two is new in each run, so topics need new names.
            prefix += f"{int(time.time())}-"
        if (
            "api_port" in configured.model_fields_set
            and configured.api_port
            and not port_is_free(configured.api_port)
        ):
            raise ProcessFailed(
                f"port {configured.api_port} is in use on {HOST}; stop the process that uses it, "
                "or choose another with --port"
            )
        port = (
            configured.api_port
            if configured.api_port and port_is_free(configured.api_port)
            else free_port()
        )
        self.metrics_port = free_port(besides=port)
        return {
            **{name: prefix + getattr(configured, name) for name in SHARED_NAMES},
            "archive_url": str(self.directory / "archive"),
            "models_path": self.directory / "models",
            # Tansu lets the first member of a group wait for half of this.
            "session_timeout_s": min(configured.session_timeout_s, 6.0),
            "archive_file_s": min(configured.archive_file_s, 5.0),
            # seconds of training, enough to see the ensemble answer, and better than no search
            "tune_seconds": min(configured.tune_seconds, 10.0),
            "two_tower_epochs": min(configured.two_tower_epochs, 5),
            "metrics_port": 0,
            "api_host": HOST,
            "api_port": port,
            "api_keys": configured.api_keys or frozenset({SecretStr(secrets.token_urlsafe(12))}),
            # for the buttons of the page
            "api_admin_keys": configured.api_admin_keys
            or frozenset({SecretStr(secrets.token_urlsafe(12))}),
        }

    def _write_environment(self, changes: dict[str, Any]) -> None:
        """Write `.demo/env`: the variables with which a command of ours uses this demo.

        It contains a key, so only its owner may read it.
        """
        environment = settings_environment(self.settings)
        names = {name.upper() for name in changes}
        if not self.external:  # then no setting of `.env` may reach the command either
            names = {
                name
                for name in environment
                if name.lower().removesuffix("_file") in Settings.model_fields
            }
        lines = [f"{name}={environment[name]}\n" for name in sorted(names)]
        with os.fdopen(
            os.open(self.directory / "env", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as file:
            file.writelines(lines)
