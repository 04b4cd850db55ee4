"""Reads a table of a backend's database as a stream, by a server-side cursor of SQLAlchemy.

SQLAlchemy is an optional dependency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.errors import ConfigurationError, SourceFailed
from core.redaction import error_text, masked_url
from store.tables.rows import BATCH, RawBatch, Report


class Table:
    """One table or view. `order_by`: the column by which its rows are ordered."""

    row_count: int | None = None
    has_stable_order = False
    layout: str | None = None
    notes: Sequence[str] = ()

    def __init__(self, url: str, table: str) -> None:
        """`table` may be schema-qualified.

        Raises ConfigurationError (no driver, no such table), SourceFailed.
        """
        try:
            import sqlalchemy
        except ModuleNotFoundError:
            raise ConfigurationError(
                "--database needs SQLAlchemy: pip install -r requirements/database.txt"
            ) from None
        self._sql: Any = sqlalchemy
        schema, _, name = table.rpartition(".")
        try:
            self._engine: Any = sqlalchemy.create_engine(url)
            self._url, self._shown = url, masked_url(url)
            _require_file(self._engine.url)
            self._table: Any = sqlalchemy.Table(
                name, sqlalchemy.MetaData(), schema=schema or None, autoload_with=self._engine
            )
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"--database needs the driver {error.name}: pip install {error.name}"
            ) from None
        except sqlalchemy.exc.NoSuchTableError:
            raise ConfigurationError(f"{self._shown} has no table {table!r}") from None
        # ValueError: a port that is no number, which may be a part of a password
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise ConfigurationError(
                "--database is no URL such as postgresql+psycopg://user@host/name or "
                "sqlite:///file.db"
            ) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise SourceFailed(f"the database cannot be read: {_reason(error, url)}") from None
        database = self._engine.url.database or ""
        # with an @ it holds a part of an unescaped password
        self.name = f"{'' if '@' in database else database}.{table}"[-80:]
        self.columns: Sequence[str] = [column.name for column in self._table.columns]
        self.order_by: str | None = None

    def batches(self, columns: Sequence[str], _report: Report) -> Iterator[RawBatch]:
        """Values as the driver returns them, ordered by the column `order_by` where it is set."""
        selected = [self._table.columns[column] for column in columns]
        query = self._sql.select(
            *[column.label(f"c{index}") for index, column in enumerate(selected)]
        )
        if self.order_by is not None:
            query = query.order_by(self._table.columns[self.order_by])
        first = 1
        try:
            with self._engine.connect().execution_options(
                stream_results=True, yield_per=BATCH
            ) as connection:
                for rows in connection.execute(query).partitions():
                    numbers = range(first, first + len(rows))
                    yield RawBatch(numbers, list(zip(*rows, strict=True)))
                    first += len(rows)
        except self._sql.exc.SQLAlchemyError as error:
            raise SourceFailed(
                f"reading {self._table.name} of {self._shown} failed: {_reason(error, self._url)}"
            ) from None
        finally:
            self._engine.dispose()


def _require_file(url: Any) -> None:
    """Raise ConfigurationError where a SQLite URL names no file: SQLite would create an empty one.

    An empty name and :memory: are databases without a file; of file: URIs the mode says whether
    to create.
    """
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or name in ("", ":memory:") or name.startswith("file:"):
        return
    if not Path(name).is_file():
        raise ConfigurationError(
            f"--database names no file: {Path(name).absolute()}; a path from the root has four "
            "slashes, as sqlite:////data/shop.db"
        )


def _reason(error: Exception, url: str) -> str:
    """The driver's message on one line.

    It has neither the SQL statement and its parameters nor the secrets in `url`.
    """
    return error_text(getattr(error, "orig", None) or error, url)
