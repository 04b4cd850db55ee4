"""Finds out what a file holds from its first bytes: its kind, encoding, delimiter and header."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from core.errors import ConfigurationError, SourceFailed
from store.tables.layouts import recognise
from store.tables.options import Options

HEAD = 262_144
"""Bytes from which everything is guessed."""
_SAMPLED = 20
_DELIMITERS = ("::", "\t", ";", "|", ",")
_IN_NAMES = "_-. /:()'\""
"""Marks that names of columns have."""
_NUMBER = re.compile(r"-?\d+([.,]\d+)?")
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

FileKind = Literal["parquet", "arrow", "arrow_stream", "excel", "json_lines", "json_array", "text"]


class TextForm(msgspec.Struct, frozen=True):
    """How a text file is written. `columns`: the names of its columns. `layout`: the public layout
    that a file without a header has.
    """

    encoding: str
    delimiter: str
    columns: Sequence[str]
    has_header: bool
    layout: str | None
    notes: Sequence[str]


def kind(head: bytes, shown: str) -> FileKind:
    """The kind of a file that begins with `head`. Raises ConfigurationError, SourceFailed."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "arrow"
    if head.startswith(b"\xff\xff\xff\xff"):
        return "arrow_stream"
    if head.startswith(b"PK\x03\x04"):
        return "excel"
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise ConfigurationError(f"{shown} is an old Excel file: save it as .xlsx or as CSV")
    if head.startswith(b"FEA1"):
        raise ConfigurationError(
            f"{shown} is Feather version 1: write it again as Feather or Parquet"
        )
    if head.startswith(b"SQLite format 3\x00"):
        raise ConfigurationError(
            f"{shown} is an SQLite database: `python -m streams import --database "
            f"sqlite:///{shown} --table NAME` reads a table of it"
        )
    if head[257:262] == b"ustar":
        raise ConfigurationError(f"{shown} is a tar archive: unpack it and give one of its files")
    wide = next((name for bom, name in _BOMS[1:] if head.startswith(bom)), None)
    text = head if wide is None else head.decode(wide, "replace").encode()
    text = text.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return "json_lines"
    if text.startswith(b"[") and re.match(rb"\[\s*[{\]]", text):
        return "json_array"
    if not head:
        raise SourceFailed(f"{shown} is empty; its first line must name the columns")
    return "text"


def encoding(head: bytes, options: Options, shown: str) -> tuple[str, list[str]]:
    """The encoding, and a note where it is guessed. Raises ConfigurationError."""
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name, []
    if options.encoding is not None:
        try:
            "".encode(options.encoding)
        except LookupError:
            raise ConfigurationError(
                f"--encoding {options.encoding!r} is unknown; utf-8, utf-16, cp1252, latin-1, "
                f"shift_jis, gb18030 are some that are known"
            ) from None
        return options.encoding, []
    if b"\x00" in head:
        raise ConfigurationError(
            f"{shown} is binary, or text without a byte order mark: give --encoding, such as "
            f"utf-16-le"
        )
    if _is_western(head):
        return "cp1252", ["the text is read as cp1252; --encoding says another encoding"]
    return "utf-8", []


def _is_western(head: bytes) -> bool:
    """Whether text is clearly not UTF-8, but letters of a Western European encoding."""
    try:
        head[: head.rfind(b"\n") + 1 or None].decode()
        return False
    except UnicodeDecodeError:
        pass
    high = re.findall(rb"[\x80-\xff]+", head)
    beside_letters = len(re.findall(rb"[A-Za-z][\x80-\xff]|[\x80-\xff][A-Za-z]", head))
    is_utf8_anywhere = re.search(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", head)
    undefined = re.search(rb"[\x81\x8d\x8f\x90\x9d]", head)
    return beside_letters >= 0.8 * len(high) and not is_utf8_anywhere and not undefined


def text_form(head: bytes, shown: str, options: Options) -> TextForm:
    """How the text file that begins with `head` is written.

    Raises ConfigurationError, SourceFailed.
    """
    encoding_, notes = encoding(head, options, shown)
    text = head.decode(encoding_, "replace")
    if len(head) >= HEAD:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()][:_SAMPLED]
    if not lines:
        raise SourceFailed(f"{shown} is empty; its first line must name the columns")
    delimiter = (options.delimiter or "").replace("\\t", "\t") or guess_delimiter(lines)
    if delimiter not in lines[0] and (suggestion := _suggest_delimiter(lines)):
        shown_one = "a tab" if suggestion == "\t" else suggestion
        raise ConfigurationError(
            f"{shown} has {shown_one} between its columns, not {delimiter}: give --delimiter "
            f"{suggestion!r}"
        )
    rows = [row for row in split(lines, delimiter) if row]
    first = [cell.strip() for cell in rows[0]]
    if options.header:
        has_header = first == list(options.header)
        return TextForm(encoding_, delimiter, options.header, has_header, None, notes)
    if layout := recognise.of_cells(rows):
        return TextForm(encoding_, delimiter, layout.header, False, layout.name, notes)
    if any(_NUMBER.fullmatch(cell) for cell in first):
        raise ConfigurationError(
            f"the first line of {shown} names no columns, it looks like a row "
            f"({', '.join(first)[:80]}): name them with --header, such as "
            f"--header user_id,item_id,value,timestamp"
        )
    return TextForm(encoding_, delimiter, first, True, None, notes)


def split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The cells of each line; quotes count where the delimiter is one character."""
    if len(delimiter) > 1:
        return [line.split(delimiter) for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return [line.split(delimiter) for line in lines]


def _suggest_delimiter(lines: Sequence[str]) -> str | None:
    """The delimiter of a file whose first line has none of the usual ones, or not the given one."""
    others = (mark for mark in lines[0] if not mark.isalnum() and mark not in _IN_NAMES)
    candidates = tuple(dict.fromkeys((*_DELIMITERS, *others)))
    suggestion = guess_delimiter(lines, candidates)
    return suggestion if len(split(lines[:1], suggestion)[0]) > 1 else None


def guess_delimiter(lines: Sequence[str], candidates: Sequence[str] = _DELIMITERS) -> str:
    """The delimiter that gives most lines the same number of cells, and the first line too."""
    best, best_score = ",", (0.0, 0)
    for delimiter in candidates:
        widths = [len(row) for row in split(lines, delimiter)]
        if not widths or widths[0] < 2:
            continue
        width, count = Counter(widths).most_common(1)[0]
        score = (round(count / len(widths), 1), width if delimiter != "::" else 10 * width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best
