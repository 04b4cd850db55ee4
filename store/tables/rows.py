"""The types that all kinds of tables share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

BATCH = 2_000
"""Most rows in one batch: what bounds the memory of a reader."""
MAX_CELL = 131_072
"""Most characters in one cell of a text file, and a line of it may have eight times as many."""
MAX_LINE = 8 * MAX_CELL


class Reject(msgspec.Struct, frozen=True):
    """A row that cannot be read: its number, a short stable code, the reason for people, and the
    values that the row holds, by field.
    """

    number: int
    code: str
    reason: str
    values: Mapping[str, Any] = {}


Report = Callable[[Reject], None]
"""Is called with every rejected row."""


class RawBatch(msgspec.Struct, frozen=True):
    """Rows by column: the number of each row, and the cells of each requested column.

    `seconds`: columns whose type says what time they hold; their cells are seconds since 1970.
    """

    numbers: Sequence[int]
    columns: Sequence[Sequence[Any]]
    seconds: frozenset[str] = frozenset()


class Table(Protocol):
    """A file, a folder of files, or a table of a database.

    `name` identifies its content in event ids. `row_count`: None where unknown before it is read.
    `has_stable_order`: a row has the same number in every read. `layout`: the name of the public
    layout that a file without a header has, or None. `notes`: what was guessed, for people.
    """

    name: str
    columns: Sequence[str]
    row_count: int | None
    has_stable_order: bool
    layout: str | None
    notes: Sequence[str]

    def batches(self, columns: Sequence[str], report: Report) -> Iterator[RawBatch]:
        """The cells of `columns`, in the order of the rows. Raises SourceFailed."""
        ...
