"""Training takes the options that an import takes, for each of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from core.errors import ConfigurationError, DatasetError
from core.process import cli
from store.tables import command_line
from store.tables.command_line import Reading, Typed
from store.tables.options import TableFile
from streams.__main__ import app as streams
from training.__main__ import app as training
from training.command_options import EVENTS_READING, ITEMS_READING, table_file
from training.data import events, items

PANEL = "How {} is read"
FILES = [
    ("dataset", "--events", ""),
    ("als", "--events", ""),
    ("retrain", "--events", ""),
    ("retrain", "--items", "items-"),
    ("worker", "--events", ""),
    ("worker", "--items", "items-"),
    ("two-tower", "--items", ""),
    ("evaluate", "--items", ""),
    ("tune", "--items", ""),
]
"""Command of training, its file, and the prefix of the options that say how it is read."""


def option_names(app: Any, command: str, file: str) -> set[str]:
    """The options of a command under the heading of a file."""
    params = cli.command_of(app).commands[command].params
    panel = PANEL.format(file)
    return {
        param.opts[0].removeprefix("--")
        for param in params
        if getattr(param, "rich_help_panel", None) == panel
    }


@pytest.mark.parametrize(("command", "file", "prefix"), FILES)
def test_a_command_of_training_reads_its_file_with_the_options_of_an_import(
    command: str, file: str, prefix: str
) -> None:
    expected = option_names(streams, "import", "the file") - {"kind"}
    if file == "--events":
        expected -= {"list-separator", "only-mapped"}
    assert len(expected) >= 8
    assert option_names(training, command, file) == {f"{prefix}{name}" for name in expected}


def test_each_file_of_training_has_the_options() -> None:
    commands: dict[str, click.Command] = cli.command_of(training).commands
    files = {
        (name, option)
        for name, command in commands.items()
        for param in command.params
        for option in param.opts
        if option in ("--events", "--items")
    }
    assert files == {(command, file) for command, file, _ in FILES}


def test_an_error_names_the_option_as_the_command_does(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a;b\n1;2\n3;4\n")

    def file(reading: Reading, **typed: Any) -> TableFile:
        return TableFile(path, command_line.options(Typed(**typed), reading))

    with pytest.raises(DatasetError, match="give --map user_id=<column>"):
        events.from_file(file(EVENTS_READING))
    with pytest.raises(DatasetError, match="give --items-map item_id=<column>"):
        items.read(file(ITEMS_READING))
    with pytest.raises(DatasetError, match="give --items-delimiter ';'"):
        items.read(file(ITEMS_READING, delimiter="|"))
    with pytest.raises(ConfigurationError, match=r"^--items-decimal 'x' is neither"):
        file(ITEMS_READING, decimal="x")
    with pytest.raises(ConfigurationError, match=r"^--items-map 'title' is not of the form"):
        file(ITEMS_READING, map=["title"])
    with pytest.raises(ConfigurationError, match="--time-unit 'h' is none of s, ms"):
        file(EVENTS_READING, time_unit="h")


def test_options_without_their_file_are_refused() -> None:
    said = command_line.options(Typed(decimal=","), ITEMS_READING)
    with pytest.raises(ConfigurationError, match="how --items is read, but no file is named"):
        table_file(None, said, ITEMS_READING)
    unsaid = command_line.options(Typed(), ITEMS_READING)
    assert table_file(None, unsaid, ITEMS_READING) is None


def test_a_file_is_named_without_the_secrets_of_its_url() -> None:
    url = "s3://key:secret42@bucket/events.csv?region=eu-central-1"
    file = table_file(url, command_line.options(Typed(), EVENTS_READING), EVENTS_READING)
    assert file is not None
    assert f"from {file}".startswith("from s3://")
    assert "secret42" not in f"from {file}"
    assert "events.csv" in f"from {file}"
