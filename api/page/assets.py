"""The files of the page, compressed, and the version in their addresses."""

from __future__ import annotations

import gzip
import hashlib
from importlib import metadata, resources
from typing import NamedTuple

CHARTS = "plotly.min.js"
"""The chart library, from the package plotly: 4.8 MB, compressed 1.4 MB."""
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """One file, as it is sent."""

    media_type: str
    compressed: bytes

    @property
    def plain(self) -> bytes:
        """For a client that does not accept gzip."""
        return gzip.decompress(self.compressed)


class Assets:
    """The files by name. A file is compressed when it is first asked for, and then cached.

    `version` changes with every file, so that a browser may cache what it has for ever.
    """

    def __init__(self) -> None:
        folder = resources.files("api.page") / "static"
        self._files = {
            entry.name: entry.read_bytes()
            for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
            if "." + entry.name.rpartition(".")[2] in _TYPES
        }
        digest = hashlib.sha256(metadata.version("plotly").encode())
        for name, content in self._files.items():
            digest.update(name.encode() + content)
        self.version = digest.hexdigest()[:12]
        self._compressed: dict[str, Asset] = {}

    def text(self, name: str) -> str:
        """A file as text."""
        return self._files[name].decode()

    def __contains__(self, name: str) -> bool:
        return name in self._files or name == CHARTS

    def is_ready(self, name: str) -> bool:
        """Whether the file is compressed already."""
        return name in self._compressed

    def read(self, name: str) -> Asset:
        """One file; the first time it is compressed, which takes 0.2 s for CHARTS."""
        asset = self._compressed.get(name)
        if asset is None:
            content = self._files.get(name) or _charts()
            media_type = _TYPES["." + name.rpartition(".")[2]]
            asset = self._compressed[name] = Asset(media_type, gzip.compress(content, mtime=0))
        return asset


def _charts() -> bytes:
    return (resources.files("plotly") / "package_data" / CHARTS).read_bytes()
