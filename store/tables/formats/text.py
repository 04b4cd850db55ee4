"""Reads delimited text: CSV, TSV and files with `::` between the cells.

A row's number is the number of its first line, as an editor shows it. A quote that is not closed
costs one row: reading goes on with the line after the one in which it opened.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TextIO

from store.tables.formats import detect
from store.tables.options import Options
from store.tables.rows import BATCH, MAX_CELL, MAX_LINE, RawBatch, Reject, Report
from store.tables.source import Part, decoded, reading

_MAX_ROW_LINES = 1_000
"""Most lines of one row, where a quoted cell has line breaks."""
_OPEN = "unexpected end of data"


class TextPart:
    """One text file."""

    row_count: int | None = None

    def __init__(self, part: Part, options: Options) -> None:
        """Raises ConfigurationError, SourceFailed."""
        self._part = part
        self._form = detect.text_form(part.head(detect.HEAD), part.shown, options)
        self.columns, self.layout = self._form.columns, self._form.layout
        self.notes = self._form.notes
        self.last_number = 0

    def batches(self, columns: Sequence[str], report: Report) -> Iterator[RawBatch]:
        """Cells as text; cells that a short row lacks are None."""
        names = list(self.columns)
        indexes = [names.index(name) if name in names else None for name in columns]
        with (
            self._part.open() as content,
            reading(self._part.shown),
            decoded(content, self._form.encoding, "surrogateescape") as text,
        ):
            lines = _Lines(text, report)
            if self._form.has_header:
                lines.take(1)
            rows = _Rows(self._form.delimiter, len(names), report)
            while chunk := lines.take(BATCH):
                first = lines.number - len(chunk)
                numbers, cells = rows.of(chunk, first, lines)
                self.last_number = lines.number - 1
                if not numbers:
                    continue
                by_column = list(zip(*cells, strict=True))
                nothing = [None] * len(numbers)
                yield RawBatch(
                    numbers,
                    [nothing if index is None else by_column[index] for index in indexes],
                )


class _Lines:
    """The lines of a stream. `number`: that of the line that comes next."""

    def __init__(self, text: TextIO, report: Report) -> None:
        self._text = text
        self._lines = self._read()
        self._report = report
        self.number = 1

    def take(self, count: int) -> list[str]:
        """The next lines, `count` at most; one longer than MAX_LINE is rejected and empty."""
        lines = list(islice(self._lines, count))
        self.number += len(lines)
        return lines

    def _read(self) -> Iterator[str]:
        read = partial(self._text.readline, MAX_LINE)
        for number, line in enumerate(iter(read, ""), 1):
            if len(line) < MAX_LINE or line.endswith("\n"):
                yield line
                continue
            while len(rest := read()) == MAX_LINE and not rest.endswith("\n"):
                pass
            text = f"the line has more than {MAX_LINE} characters"
            self._report(Reject(number, "too_long", text))
            yield "\n"


class _Rows:
    """Makes rows of lines: each has a cell a column, and no more."""

    def __init__(self, delimiter: str, width: int, report: Report) -> None:
        self._delimiter, self._width, self._report = delimiter, width, report
        self._quotes = len(delimiter) == 1

    def of(
        self, lines: list[str], first: int, more: _Lines
    ) -> tuple[Sequence[int], list[list[str | None]]]:
        """The numbers and the cells of the rows in `lines`, of which the first is line `first`.

        A row that goes on after them takes its lines from `more`.
        """
        if self._is_simple(lines):
            try:
                rows = _cells(lines, self._delimiter)
            except csv.Error:  # a cell over the limit
                rows = []
            if len(rows) == len(lines):
                widths = set(map(len, rows))
                if widths == {self._width}:
                    return range(first, first + len(rows)), rows  # type: ignore[return-value]
                return self._fitting(enumerate(rows, first))
        return self._fitting(self._one_by_one(lines, first, more))

    def _is_simple(self, lines: list[str]) -> bool:
        """Whether no row goes over more than one line."""
        return not self._quotes or not any('"' in line and line.count('"') & 1 for line in lines)

    def _fitting(
        self, rows: Iterator[tuple[int, list[str]]]
    ) -> tuple[list[int], list[list[str | None]]]:
        numbers: list[int] = []
        cells: list[list[str | None]] = []
        for number, row in rows:
            extra = len(row) - self._width
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if extra > 0 and any(cell.strip() for cell in row[self._width :]):
                text = f"the row has {len(row)} cells, the file has {self._width} columns"
                self._report(Reject(number, "too_many_cells", text, _shown(row)))
                continue
            numbers.append(number)
            cells.append([*row[: self._width], *[None] * -extra])
        return numbers, cells

    def _one_by_one(
        self, lines: list[str], first: int, more: _Lines
    ) -> Iterator[tuple[int, list[str]]]:
        at = 0
        while at < len(lines):
            used, row, problem = self._row(lines, at, more)
            if row is not None:
                yield first + at, row
            elif problem is not None:
                self._report(Reject(first + at, *problem, _shown([lines[at]])))
            at += used

    def _row(
        self, lines: list[str], at: int, more: _Lines
    ) -> tuple[int, list[str] | None, tuple[str, str] | None]:
        """How many lines the row at `at` takes, and its cells or what is wrong with it."""
        line = lines[at]
        if not line.strip("\r\n"):
            return 1, None, None
        is_odd = self._quotes and line.count('"') & 1
        try:
            return 1, next(csv.reader([line], delimiter=self._delimiter, strict=bool(is_odd))), None
        except csv.Error as error:
            if "limit" in str(error):
                return 1, None, ("too_long", f"a cell has more than {MAX_CELL} characters")
            if is_odd and str(error) == _OPEN and (joined := self._joined(lines, at, more)):
                return *joined, None
        text = (
            "a quote that opens in this row is not closed, or something follows the closing one; "
            "reading goes on with the next line"
        )
        return 1, None, ("stray_quote", text)

    def _joined(self, lines: list[str], at: int, more: _Lines) -> tuple[int, list[str]] | None:
        """The row that begins at `at` and goes over several lines; None where a quote is stray."""
        quotes, length = lines[at].count('"'), len(lines[at])
        for end in range(at + 1, at + _MAX_ROW_LINES):
            if end == len(lines):
                lines.extend(more.take(1))
            if end == len(lines) or (length := length + len(lines[end])) > MAX_LINE:
                return None
            quotes += (count := lines[end].count('"'))
            if not count or quotes & 1:
                continue
            try:
                rows = list(csv.reader(lines[at : end + 1], delimiter=self._delimiter, strict=True))
            except csv.Error as error:
                if str(error) == _OPEN:
                    continue
                return None
            is_row = len(rows) == 1 and len(rows[0]) == self._width
            return (end + 1 - at, rows[0]) if is_row else None
        return None


def _cells(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The cells of each line. Raises csv.Error."""
    if len(delimiter) > 1:
        return [line.rstrip("\r\n").split(delimiter) for line in lines]
    return list(csv.reader(lines, delimiter=delimiter))


def _shown(cells: Sequence[str]) -> dict[str, str]:
    return {"line": ", ".join(cells).strip()[:1_000]}
