"""One table of a file, or of all files of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from core.errors import SourceFailed
from store.tables import source
from store.tables.formats import detect
from store.tables.formats.columns import ColumnsPart
from store.tables.formats.excel import ExcelPart
from store.tables.formats.json_rows import JsonPart
from store.tables.formats.text import TextPart
from store.tables.options import Options
from store.tables.rows import RawBatch, Reject, Report
from store.tables.source import Part

_MAGIC_BYTES = 4_096
_BINARY = (".parquet", ".feather", ".arrow", ".xlsx")


class TablePart(Protocol):
    """One file as a table. `last_number`: number of the last row, once it was read."""

    columns: Sequence[str]
    row_count: int | None
    layout: str | None
    notes: Sequence[str]
    last_number: int

    def batches(self, columns: Sequence[str], report: Report) -> Iterator[RawBatch]:
        """As rows.Table."""
        ...


class FileTable:
    """The rows of one file; of a folder: of all its files in the order of their names.

    The columns are those of the first file, and those that folder names hold. In a folder, the
    rows of the second file are numbered on after those of the first.
    """

    has_stable_order = True

    def __init__(self, path: str | Path, options: Options) -> None:
        """Raises ConfigurationError, SourceFailed."""
        self.name, self._parts = source.find(path)
        self._options = options
        first = _open(self._parts[0], options)
        partition = self._parts[0].partition
        self.columns: Sequence[str] = [
            *first.columns,
            *(name for name in partition if name not in first.columns),
        ]
        self.layout, self.notes = first.layout, first.notes
        self.row_count = first.row_count if len(self._parts) == 1 else None
        self._first = first

    def batches(self, columns: Sequence[str], report: Report) -> Iterator[RawBatch]:
        """As rows.Table."""
        before = 0
        for index, part in enumerate(self._parts):
            table = self._first if index == 0 else _open(part, self._options)
            in_file = [name for name in columns if name in table.columns]
            for batch in table.batches(in_file, _shifted(report, before, part, self._parts)):
                cells = dict(zip(in_file, batch.columns, strict=True))
                yield RawBatch(
                    [before + number for number in batch.numbers] if before else batch.numbers,
                    [
                        cells.get(name) or [part.partition.get(name)] * len(batch.numbers)
                        for name in columns
                    ],
                    batch.seconds,
                )
            before += table.last_number


def _shifted(report: Report, before: int, part: Part, parts: Sequence[Part]) -> Report:
    """Reports the rows of one file of a folder: numbered in the folder, located in the file."""
    if len(parts) == 1:
        return report

    def shifted(reject: Reject) -> None:
        reason = f"{part.shown}, row {reject.number}: {reject.reason}"
        report(Reject(before + reject.number, reject.code, reason, reject.values))

    return shifted


def _open(part: Part, options: Options) -> TablePart:
    kind = detect.kind(part.head(_MAGIC_BYTES), part.shown)
    if kind in ("parquet", "arrow", "arrow_stream"):
        return ColumnsPart(part, options, kind)
    if kind == "excel":
        return ExcelPart(part, options)
    if kind == "text" and part.path.lower().endswith(_BINARY):
        raise SourceFailed(f"{part.shown} cannot be read: its content is not what its name says")
    if kind == "text":
        return TextPart(part, options)
    return JsonPart(part, options, is_array=kind == "json_array")
