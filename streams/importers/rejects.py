"""Writes the rows of an import that are no valid event to a file of JSON lines."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import BinaryIO

from core.codec import encode_json
from store.tables.rows import Reject


class Rejects(AbstractContextManager["Rejects"]):
    """The file of rejected rows; it is created with the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._file: BinaryIO | None = None

    def add(self, reject: Reject) -> None:
        """Write the row's number, the code and reason, and the values by field."""
        if self._file is None:
            self._file = self._stack.enter_context(self._path.open("wb"))
        values = {
            field: _writable(str(value))
            for field, value in reject.values.items()
            if value is not None
        }
        line = {
            "row": reject.number,
            "code": reject.code,
            "reason": _writable(reject.reason),
            "values": values,
        }
        self._file.write(encode_json(line) + b"\n")

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _writable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
