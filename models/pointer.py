"""Reads and replaces the pointer of a registry: the text file `current`.

The first line is the live version; the next lines are the versions that were live before it, latest
first.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from core.errors import ModelCorrupt
from models import disk

VERSION = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(-\d+)?")
"""The form of a version: the time of its publication, and a number if others have the same."""
LINES = 100
"""Maximum versions in the pointer, and so the number of roll-backs in a row."""

_REMEDY = "promote the version to serve: `python -m training models promote VERSION`"


class Pointer:
    """The file `current` in the folder of a registry."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "current"

    def read(self) -> list[str]:
        """The live version and those before it; empty before the first promotion.

        Raises ModelCorrupt.
        """
        try:
            lines = self._path.read_text("utf-8").split()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ModelCorrupt(f"{self._path} cannot be read: {reason}; {_REMEDY}") from None
        if not lines or not all(VERSION.fullmatch(line) for line in lines):
            raise ModelCorrupt(f"{self._path} must hold one version in each line; {_REMEDY}")
        return lines

    def write(self, versions: list[str]) -> None:
        """Replace the file by one with `versions`, the live one first.

        Raises ModelCorrupt when a folder has its name; OSError leaves the old file in place.
        """
        if self._path.is_dir():
            raise ModelCorrupt(
                f"{self._path} is a folder where a file should be; remove it, then "
                f"promote a version"
            )
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".pointer-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write("\n".join(versions[:LINES]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink()
            raise
        temporary.chmod(0o644)  # mkstemp creates 0600; the API may run as another user
        temporary.replace(self._path)
        disk.fsync(self._folder)
