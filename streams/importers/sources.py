"""Reads rows from files as a stream of (row number, values of the mapped columns).

Row numbers are the line numbers that an editor shows.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import ConfigurationError, SourceFailed
from streams.importers.formats import KNOWN, Format

FETCH_ROWS = 10_000
"""Rows read at once from Parquet or a database."""

Row = tuple[int, Sequence[Any]]


class Source(Protocol):
    """A file or a database table.

    `name` identifies its content in event ids. `row_count`: None where the source does not tell it.
    `has_stable_order`: a row has the same number in every read.
    """

    name: str
    columns: Sequence[str]
    row_count: int | None
    has_stable_order: bool

    def rows(self, format_: Format) -> Iterator[Row]:
        """The values of `format_.columns`, in that order."""
        ...


class TextFile:
    """CSV, and MovieLens' `::` files."""

    row_count: int | None = None
    has_stable_order = True

    def __init__(self, path: Path, delimiter: str | None = None) -> None:
        """`delimiter`: by default that of a known file, else a comma (a tab for .tsv).

        Raises SourceFailed.
        """
        known = KNOWN.get(path.name, Format())
        self._path, self._encoding = path, known.encoding
        self._delimiter = delimiter or ("\t" if path.suffix == ".tsv" else known.delimiter)
        self.name = _fingerprint(path)
        self._has_header = not known.header
        with self._open() as lines:
            self.columns: Sequence[str] = known.header or [
                name.strip() for name in next(self._cells(lines), (0, []))[1]
            ]
        if not self.columns:
            raise SourceFailed(f"{path} is empty; its first line must name the columns")

    def rows(self, format_: Format) -> Iterator[Row]:
        """Cells that a short row lacks are None."""
        indexes = [list(self.columns).index(column) for column in format_.columns.values()]
        with self._open() as lines:
            cells = self._cells(lines)
            if self._has_header:
                next(cells, None)
            for number, row in cells:
                if row:
                    yield number, [row[index] if index < len(row) else None for index in indexes]

    def _cells(self, lines: Any) -> Iterator[tuple[int, list[str]]]:
        if len(self._delimiter) > 1:
            for number, line in enumerate(lines, 1):
                yield number, line.rstrip("\r\n").split(self._delimiter)
            return
        reader = csv.reader(lines, delimiter=self._delimiter)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise SourceFailed(f"{self._path}, line {reader.line_num}: {error}") from None

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with (
            _named(self._path),
            self._path.open(encoding=self._encoding, errors="surrogateescape", newline="") as lines,
        ):
            yield lines


class ParquetFile:
    """A Parquet file. Row numbers count from 1."""

    has_stable_order = True

    def __init__(self, path: Path) -> None:
        """Raises SourceFailed."""
        self._path = path
        with _named(path):
            self.name = _fingerprint(path)
            metadata = pq.read_metadata(path)
            self.columns: Sequence[str] = pq.read_schema(path).names
        self.row_count: int | None = metadata.num_rows

    def rows(self, format_: Format) -> Iterator[Row]:
        """Values as Python objects."""
        columns = list(format_.columns.values())
        number = 1
        with _named(self._path), pq.ParquetFile(self._path) as parquet:
            for batch in parquet.iter_batches(FETCH_ROWS, columns=sorted(set(columns))):
                values = {name: batch.column(name).to_pylist() for name in set(columns)}
                for row in zip(*(values[name] for name in columns), strict=True):
                    yield number, row
                    number += 1


def open_file(path: Path, delimiter: str | None = None) -> Source:
    """The file at `path`, read by its extension. Raises ConfigurationError, SourceFailed."""
    if not path.is_file():
        raise ConfigurationError(f"{path} is no file")
    return ParquetFile(path) if path.suffix == ".parquet" else TextFile(path, delimiter)


def _fingerprint(path: Path) -> str:
    """The file's name and 8 digits of a hash of its size and its first 64 KiB.

    Files of the same name get different digits.
    """
    with path.open("rb") as file:
        digest = hashlib.sha256(str(path.stat().st_size).encode() + b"\n" + file.read(65_536))
    return f"{path.name[:64]}-{digest.hexdigest()[:8]}"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise SourceFailed(f"{path} cannot be read: {error}") from None
