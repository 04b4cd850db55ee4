"""Reads the first sheet of an Excel file, by the optional openpyxl. Row numbers are the sheet's."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from core.errors import ConfigurationError, SourceFailed
from store.tables.options import Options
from store.tables.rows import BATCH, RawBatch, Report
from store.tables.source import Part, reading


class ExcelPart:
    """One Excel file. Its first row that is not empty names the columns."""

    row_count: int | None = None
    layout: str | None = None
    notes: Sequence[str] = ()

    def __init__(self, part: Part, options: Options) -> None:
        """Raises ConfigurationError (without openpyxl), SourceFailed."""
        try:
            import openpyxl
        except ModuleNotFoundError:
            raise ConfigurationError(
                "an Excel file needs openpyxl: pip install -r requirements/excel.txt, or save the "
                "sheet as CSV"
            ) from None
        self._load: Any = openpyxl.load_workbook
        self._part, self._header = part, options.header
        self.last_number = 0
        with closing(self._rows()) as rows:
            first = next(rows, None)
        if first is None:
            raise SourceFailed(f"{part.shown} has no row in its first sheet")
        self.columns: Sequence[str] = self._header or [
            "" if cell is None else str(cell).strip() for cell in first[1]
        ]

    def batches(self, columns: Sequence[str], _report: Report) -> Iterator[RawBatch]:
        """Values as Excel holds them: numbers, times, texts."""
        names = list(self.columns)
        indexes = [names.index(name) if name in names else None for name in columns]
        rows = self._rows()
        if not self._header:
            next(rows, None)
        while batch := list(islice(rows, BATCH)):
            self.last_number = batch[-1][0]
            yield RawBatch(
                [number for number, _ in batch],
                [
                    [None if index is None or index >= len(row) else row[index] for _, row in batch]
                    for index in indexes
                ],
            )

    def _rows(self) -> Generator[tuple[int, tuple[Any, ...]], None, None]:
        with self._part.open_seekable() as file, reading(self._part.shown):
            try:
                book = self._load(file, read_only=True, data_only=True)
            except (KeyError, ValueError) as error:
                raise SourceFailed(f"{self._part.shown} cannot be read: {error}") from None
            for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
                if any(cell is not None for cell in row):
                    yield number, row
