"""Writes the rows of an import that are no valid event to a file of JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from core.codec import encode_json
from core.errors import BadEvent


class Rejects(AbstractContextManager["Rejects"]):
    """The file of rejected rows; it is created with the first one."""

    def __init__(self, path: Path, fields: Sequence[str]) -> None:
        """`fields`: what each value of a row holds."""
        self._path, self._fields = path, fields
        self._stack = ExitStack()
        self._file: BinaryIO | None = None

    def add(self, number: int, row: Sequence[Any], error: BadEvent) -> None:
        """Write the row with its number, the error and the values by field."""
        if self._file is None:
            self._file = self._stack.enter_context(self._path.open("wb"))
        values = {
            field: str(value).encode("utf-8", "backslashreplace").decode()
            for field, value in zip(self._fields, row, strict=True)
            if value is not None
        }
        reason = str(error).encode("utf-8", "backslashreplace").decode()
        self._file.write(
            encode_json({"row": number, "code": error.code, "reason": reason, "values": values})
            + b"\n"
        )

    def __exit__(self, *_: object) -> None:
        self._stack.close()
