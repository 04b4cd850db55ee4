"""Tables at 80 columns: nothing in them is cut, and what is left out is named."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from core.process import tables
from core.process.tables import Column, Table
from testing.process import ROOT
from tests.structure.tree import python_files

LONG_ID = "startup-" + "9" * 100


def printed(show: Callable[[Console], None], width: int = 80) -> list[str]:
    file = io.StringIO()
    show(Console(file=file, width=width))
    return file.getvalue().splitlines()


def positions() -> Table:
    table = Table(
        Column("topic"),
        Column("log begins", 2, number=True),
        Column("log ends", 1, number=True),
        Column("redis", number=True),
        Column("why", wraps=True),
        title="positions",
    )
    table.add("interactions", 10**17, 10**18, 10**18, "one " * 30)
    table.add("items", 1, 2, None, "short")
    return table


def test_a_narrow_terminal_loses_the_least_important_columns_and_says_which() -> None:
    lines = printed(positions().show)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "not shown: log begins; --wide shows them" in lines
    assert str(10**18) in text
    assert str(10**17) not in text.replace(str(10**18), "")
    assert text.count("one") == 30, "text wraps"
    assert re.search(r"items +2 +- +short$", text, re.MULTILINE)


def test_a_wide_terminal_or_pipe_has_every_column_on_one_line() -> None:
    lines = printed(positions().show, tables.console(wide=True).width)
    assert len(lines) == 5
    assert re.search(rf"{10**17} +{10**18} +{10**18} +(one ?){{30}}$", lines[3])


def test_an_id_longer_than_the_line_is_printed_whole() -> None:
    table = Table(Column("item"), Column("title", 1, wraps=True), Column("score", number=True))
    table.add(LONG_ID, "a title", 0.25)
    assert LONG_ID in printed(table.show)[2]
    (line,) = printed(lambda console: tables.show_fields({"item": LONG_ID}, console))
    assert line == f"item  {LONG_ID}"


def test_markup_and_control_characters_of_data_are_printed_as_they_are_and_escaped() -> None:
    table = Table(Column("item"), Column("reason", wraps=True))
    table.add("[red]x[/]", "a\x1b[2Jb")
    assert printed(table.show)[2] == r"[red]x[/]  a\x1b[2Jb"


@pytest.mark.parametrize("room", ["core", "streams", "training", "engines", "api"])
def test_every_table_of_a_command_is_laid_out_in_one_place(room: str) -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in python_files(room)
        if "rich.table" in path.read_text()
    ]
    assert not users
