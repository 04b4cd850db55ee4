"""Prints the results of commands: tables in which nothing is cut, fields, and JSON for programs.

A column has exact values (ids, numbers, times), which stay on one line, or text, which wraps. Where
a table is wider than the terminal (80 characters in a pipe), its least important columns stay out,
and a line below it names them: `--wide` prints them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # rich and msgspec take longer to import than --help may take
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Wide = Annotated[
    bool, typer.Option("--wide", help="Print all columns, also those that make lines long.")
]

GAP = 2
"""Spaces between two columns."""
LEAST_TEXT = 24
"""Characters that a column of text needs, unless its texts are shorter."""
_WIDE = 100_000
"""Characters of a line of `--wide`."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    `priority` 0: always printed; of the others, the highest stay out first. `number`: aligned to
    the right. `wraps`: text, whose words may continue on the next line.
    """

    title: str
    priority: int = 0
    number: bool = False
    wraps: bool = False


class Table:
    """A table; `add` its rows, then `show` it."""

    def __init__(self, *columns: Column, title: str = "") -> None:
        self._columns, self._title = columns, title
        self._sections: list[list[tuple[str, ...]]] = [[]]

    def add(self, *cells: object) -> None:
        """Add a row: one cell for each column; None is a dash."""
        assert len(cells) == len(self._columns), "one cell for each column"
        self._sections[-1].append(tuple(map(printable, cells)))

    def add_section(self) -> None:
        """Leave an empty line between the rows before and after."""
        if self._sections[-1]:
            self._sections.append([])

    def show(self, console: Console) -> None:
        """Print the columns that fit, and name the others."""
        from rich.text import Text

        longest = self._longest()
        places = self._fitting(longest, console.width)
        widths = self._widths(places, longest, console.width)
        if self._title:
            console.print(Text(self._title, style="bold"))
        header = tuple(column.title for column in self._columns)
        self._show_row(header, widths, console, style="bold")
        line = "-" if console.options.ascii_only else "─"
        console.print(line * (sum(widths.values()) + GAP * (len(widths) - 1)), soft_wrap=True)
        for number, section in enumerate(section for section in self._sections if section):
            if number:
                console.print()
            for row in section:
                self._show_row(row, widths, console)
        if len(places) < len(self._columns):
            left_out = (name for place, name in enumerate(header) if place not in places)
            console.print(Text(f"not shown: {', '.join(left_out)}; --wide shows them", style="dim"))

    def _longest(self) -> list[int]:
        """The characters of the longest cell of each column."""
        from rich.cells import cell_len

        rows = [[column.title for column in self._columns]]
        rows += [list(row) for section in self._sections for row in section]
        return [
            max(cell_len(line) for cell in cells for line in cell.split("\n"))
            for cells in zip(*rows, strict=True)
        ]

    def _least(self, place: int, longest: list[int]) -> int:
        return min(longest[place], LEAST_TEXT) if self._columns[place].wraps else longest[place]

    def _fitting(self, longest: list[int], width: int) -> list[int]:
        """The columns that a line of `width` characters has room for."""
        places = list(range(len(longest)))
        while sum(self._least(place, longest) + GAP for place in places) - GAP > width:
            droppable = [place for place in places if self._columns[place].priority]
            if not droppable:
                break
            places.remove(max(droppable, key=lambda place: (self._columns[place].priority, place)))
        return places

    def _widths(self, places: list[int], longest: list[int], width: int) -> dict[int, int]:
        """The characters of each column; text has what the exact columns leave."""
        widths = {place: self._least(place, longest) for place in places}
        spare = max(0, width - sum(widths.values()) - GAP * (len(widths) - 1))
        for place in places:
            more = min(spare, longest[place] - widths[place])
            widths[place] += more
            spare -= more
        return widths

    def _show_row(
        self, row: tuple[str, ...], widths: dict[int, int], console: Console, style: str = ""
    ) -> None:
        from rich.text import Text

        cells = []
        for place, width in widths.items():
            lines = Text(row[place]).wrap(console, width, overflow="fold")
            if self._columns[place].number:
                for line in lines:
                    line.align("right", width)
            cells.append(lines)
        for number in range(max(map(len, cells))):
            joined = Text(style=style)
            for lines, width in zip(cells, widths.values(), strict=True):
                line = lines[number] if number < len(lines) else Text()
                line.align("left", width)
                joined.append_text(line).append(" " * GAP)
            joined.rstrip()
            console.print(joined, soft_wrap=True, highlight=False)


def printable(value: object) -> str:
    """The text of `value`, in which control characters are escaped: they could move the cursor."""
    if value is None:
        return "-"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )


def console(wide: bool = False, quiet: bool = False) -> Console:
    """Standard output; `wide`: its lines may have any length, `quiet`: it prints nothing."""
    from rich.console import Console

    return Console(highlight=False, width=_WIDE if wide else None, quiet=quiet)


def show_fields(fields: Mapping[str, object], console: Console) -> None:
    """Print one line for each field: its name, then its value, which is not cut or wrapped."""
    from rich.text import Text

    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        text = Text.assemble((name.ljust(width), "bold"), "  ", printable(value))
        console.print(text, soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """Print `value` as indented JSON."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
