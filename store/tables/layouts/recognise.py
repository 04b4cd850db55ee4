"""Recognises the layout of a public data set by its columns or by its cells.

File names do not count: `ratings.csv` is MovieLens' or goodbooks', depending on its columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from store.tables.layouts.catalogues import CATALOGUES
from store.tables.layouts.events import EVENTS
from store.tables.layouts.layout import Layout
from store.tables.layouts.without_header import WITHOUT_HEADER


def of_columns(columns: Sequence[str]) -> Layout | None:
    """The layout that has these columns."""
    names = frozenset(columns)
    return next((layout for layout in (*CATALOGUES, *EVENTS) if layout.has <= names), None)


def of_cells(rows: Sequence[Sequence[str]]) -> Layout | None:
    """The layout that the first and four fifths of these first rows of a file look like."""
    for layout in WITHOUT_HEADER:
        patterns = [re.compile(cell) for cell in layout.cells]
        fits = [
            len(row) == len(patterns)
            and all(
                pattern.fullmatch(cell.strip()) for pattern, cell in zip(patterns, row, strict=True)
            )
            for row in rows
        ]
        # the first line, too: it may name the columns
        if fits and fits[0] and sum(fits) >= 0.8 * len(fits):
            return layout
    return None


def named(name: str | None) -> Layout | None:
    """The layout without a header of this name."""
    return next((layout for layout in WITHOUT_HEADER if layout.name == name), None)
