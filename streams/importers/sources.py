"""Rows from files and database tables, streamed: (row number, values of the wanted columns).

Row numbers are what an editor shows.
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
"""Rows taken from Parquet or a database at once."""

Row = tuple[int, Sequence[Any]]


class Source(Protocol):
    """Where rows come from.

    `name` identifies the source's content in event ids; `rows_known` is None where nobody has
    counted.
    """

    name: str
    columns: Sequence[str]
    rows_known: int | None

    def rows(self, format_: Format) -> Iterator[Row]:
        """The values of `format_.columns`, in that order."""
        ...


class TextFile:
    """CSV, and MovieLens' `::` files."""

    rows_known: int | None = None

    def __init__(self, path: Path, delimiter: str | None = None) -> None:
        """`delimiter` None: that of a known file, else a comma (a tab for .tsv).

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
        """Rows with the wrong number of cells come as they are: shorter ones padded with None."""
        wanted = [list(self.columns).index(column) for column in format_.columns.values()]
        with self._open() as lines:
            cells = self._cells(lines)
            if self._has_header:
                next(cells, None)
            for number, row in cells:
                if row:
                    yield number, [row[index] if index < len(row) else None for index in wanted]

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

    def __init__(self, path: Path) -> None:
        """Raises SourceFailed."""
        self._path = path
        with _named(path):
            self.name = _fingerprint(path)
            metadata = pq.read_metadata(path)
            self.columns: Sequence[str] = pq.read_schema(path).names
        self.rows_known: int | None = metadata.num_rows

    def rows(self, format_: Format) -> Iterator[Row]:
        """Values as Python objects."""
        wanted = list(format_.columns.values())
        number = 1
        with _named(self._path), pq.ParquetFile(self._path) as parquet:
            for batch in parquet.iter_batches(FETCH_ROWS, columns=sorted(set(wanted))):
                values = {name: batch.column(name).to_pylist() for name in set(wanted)}
                for row in zip(*(values[name] for name in wanted), strict=True):
                    yield number, row
                    number += 1


def open_file(path: Path, delimiter: str | None = None) -> Source:
    """The file at `path`, by its ending. Raises ConfigurationError, SourceFailed."""
    if not path.is_file():
        raise ConfigurationError(f"{path} is no file")
    return ParquetFile(path) if path.suffix == ".parquet" else TextFile(path, delimiter)


def _fingerprint(path: Path) -> str:
    """The file's name and 8 digits that tell files of one name apart: of its size and its first 64
    KiB.
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
