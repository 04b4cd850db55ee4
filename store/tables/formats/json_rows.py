"""Reads JSON: one object a line, or one array of objects.

Lines may be Python literals ({'asin': ...}), as some public data sets are.
"""

from __future__ import annotations

import ast
import codecs
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO, cast

import msgspec

from core.contract import problems
from core.errors import SourceFailed
from store.tables.formats import detect
from store.tables.options import Options
from store.tables.rows import BATCH, MAX_LINE, RawBatch, Reject, Report
from store.tables.source import Part, decoded, reading

_SAMPLED = 1_000
"""Rows whose keys are the columns."""
_CHUNK = 1 << 20
_decode = msgspec.json.Decoder().decode


class JsonPart:
    """A file of JSON lines, or of one JSON array."""

    row_count: int | None = None
    layout: str | None = None

    def __init__(self, part: Part, options: Options, *, is_array: bool) -> None:
        """Raises ConfigurationError, SourceFailed."""
        self._part, self._is_array = part, is_array
        self.notes: Sequence[str]
        self._encoding, self.notes = detect.encoding(part.head(detect.HEAD), options, part.shown)
        self.last_number = 0
        names: dict[str, None] = {}
        with closing(self._rows(lambda _reject: None)) as rows:
            for _, row in islice(rows, _SAMPLED):
                names.update(dict.fromkeys(row))
        self.columns: Sequence[str] = list(names)
        if not names:
            raise SourceFailed(f"{part.shown} has no JSON object among its first {_SAMPLED} rows")

    def batches(self, columns: Sequence[str], report: Report) -> Iterator[RawBatch]:
        """Values as Python objects; keys that a row lacks are None."""
        rows = self._rows(report)
        while batch := list(islice(rows, BATCH)):
            yield RawBatch(
                [number for number, _ in batch],
                [[row.get(name) for _, row in batch] for name in columns],
            )

    def _rows(self, report: Report) -> Generator[tuple[int, dict[str, Any]], None, None]:
        self.last_number = 0
        with (
            self._part.open() as content,
            reading(self._part.shown),
            closing(
                self._elements(content) if self._is_array else self._lines(content, report)
            ) as rows,
        ):
            for number, row in rows:
                self.last_number = number
                if isinstance(row, dict):
                    yield number, row
                else:
                    text = f"the row is no JSON object but {str(row)[:80]!r}"
                    report(Reject(number, "not_json", text))

    def _lines(self, content: BinaryIO, report: Report) -> Generator[tuple[int, Any], None, None]:
        if self._encoding not in ("utf-8", "utf-8-sig"):
            content = cast("BinaryIO", _Recoded(content, self._encoding))
        for number, line in enumerate(iter(lambda: content.readline(MAX_LINE), b""), 1):
            # only the rest of a line that was too long begins inside a row
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (rest := content.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                text = f"the line has more than {MAX_LINE} bytes"
                report(Reject(number, "too_long", text))
                continue
            text_line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text_line:
                continue
            try:
                yield number, _decode(text_line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                row = _lenient(text_line)
                if row is None:
                    shown = text_line[:1_000].decode("utf-8", "backslashreplace")
                    text = problems.in_words(error, noun="line")
                    report(Reject(number, "not_json", text, {"line": shown}))
                else:
                    yield number, row

    def _elements(self, content: BinaryIO) -> Generator[tuple[int, Any], None, None]:
        """The elements of an array, of which one is in memory at a time, and a chunk of text."""
        with decoded(content, self._encoding, "surrogateescape") as text:
            decoder = json.JSONDecoder()
            buffer, at, number, is_end = text.read(_CHUNK).lstrip("\ufeff \t\r\n"), 1, 0, False
            while True:
                while at < len(buffer) and buffer[at] in ", \t\r\n":
                    at += 1
                if buffer[at : at + 1] == "]":
                    return
                try:
                    row, end = decoder.raw_decode(buffer, at)
                    if end == len(buffer) and not is_end:  # a number may go on in the next chunk
                        raise json.JSONDecodeError("incomplete", buffer, end)
                except json.JSONDecodeError as error:
                    if is_end or len(buffer) - at > MAX_LINE + _CHUNK:
                        cause = "ends within" if is_end and at >= len(buffer) else error.msg
                        raise SourceFailed(
                            f"{self._part.shown}, element {number + 1} of the array: {cause}; the "
                            f"rows before it were read"
                        ) from None
                    chunk = text.read(_CHUNK)
                    is_end = not chunk
                    buffer, at = buffer[at:] + chunk, 0
                    continue
                number += 1
                at = end
                yield number, row


class _Recoded:
    """The lines of a stream in UTF-8. Other encodings of JSON are rare and may take longer."""

    def __init__(self, content: BinaryIO, encoding: str) -> None:
        self._lines = codecs.getreader(encoding)(content, "replace")

    def readline(self, limit: int) -> bytes:
        return self._lines.readline(limit).encode()


def _lenient(line: bytes) -> Any:
    """The object in a line that is a Python literal or holds NaN; None where it is neither."""
    text = line.decode("utf-8", "surrogateescape")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            row = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        return row if isinstance(row, dict) else None
