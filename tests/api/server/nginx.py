"""nginx as a proxy in front of the API. The program must be on PATH."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from testing.ports import HOST
from testing.server import Server, ask

_CONFIGURATION = """
daemon off;
master_process off;
pid nginx-own.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen {listen};
    {locations}
  }}
}}
"""


def is_installed() -> bool:
    """Whether nginx is on PATH."""
    return shutil.which("nginx") is not None


class Nginx(Server):
    """One nginx with the `locations` of its configuration file."""

    name = "nginx"

    def __init__(self, directory: Path, locations: str) -> None:
        super().__init__(directory)
        self._locations = locations

    def _command(self) -> Sequence[str | Path]:
        file = self.directory / "nginx.conf"
        file.write_text(
            _CONFIGURATION.format(listen=f"{HOST}:{self.port}", locations=self._locations)
        )
        return ["nginx", "-p", self.directory, "-e", "stderr", "-c", file]

    def _answers(self) -> bool:
        return ask(self.port, b"GET / HTTP/1.0\r\n\r\n", 4).startswith(b"HTTP")
