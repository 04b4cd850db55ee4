"""Runs an object store with the API of S3 (moto's server) on loopback."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from testing.ports import HOST
from testing.server import Server, ask

BUCKET = "eddyline"


class ObjectStore(Server):
    """An S3 in memory with one bucket; any key and secret are accepted."""

    name = "object_store"

    def start(self) -> ObjectStore:
        """Start, and make the bucket."""
        super().start()
        address = f"http://{self.address}/{BUCKET}"
        urllib.request.urlopen(urllib.request.Request(address, method="PUT")).close()
        return self

    def url(self, prefix: str) -> str:
        """The value of ARCHIVE_URL for the objects below `prefix`."""
        options = f"endpoint_override={self.address}&scheme=http&region=us-east-1"
        return f"s3://key:secret@{BUCKET}/{prefix}?{options}"

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]

    def _answers(self) -> bool:
        request = f"HEAD /moto-api/ HTTP/1.0\r\nHost: {self.address}\r\n\r\n".encode()
        return ask(self.port, request, 64).startswith(b"HTTP/1.")
