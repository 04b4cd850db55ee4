"""The options that several commands of `python -m training` share.

Nothing here is slow to import, so that --help is fast.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigurationError
from store.tables import command_line
from store.tables.command_line import Reading, Typed
from store.tables.options import Options, TableFile

Events = Annotated[
    str | None,
    typer.Option(
        help=(
            "File, folder or s3:// URL of events, in any form that `streams import` reads; without "
            "it, the archive."
        )
    ),
]
Items = Annotated[
    str | None,
    typer.Option(
        help=(
            "File, folder or s3:// URL of items, or a bundle's catalogue.json; without it, the "
            "catalogue in Redis."
        ),
    ),
]
ItemContent = Annotated[
    str | None,
    typer.Option(
        "--items",
        help="File, folder or s3:// URL of items; without it, no content is known.",
    ),
]
EVENTS_READING = Reading("--events", "interactions")
ITEM_CONTENT_READING = Reading("--items", "items")
ITEMS_READING = Reading("--items", "items", "items-")
"""Beside --events, whose options have the plain names."""
HyperparametersFile = Annotated[
    Path | None,
    typer.Option(
        "--hyperparameters",
        help="JSON that `tune` wrote; without it, the settings.",
        exists=True,
        dir_okay=False,
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the solver; 0: one a core.")]
Users = Annotated[
    int, typer.Option(min=1, help="Most users who are judged, drawn by TRAINING_SEED.")
]
Folder = Annotated[
    Path,
    typer.Option("--dataset", help="Folder that `dataset` wrote.", exists=True, file_okay=False),
]
NoLease = Annotated[
    bool,
    typer.Option(
        "--no-lease",
        help="Work without Redis: nothing stops a second retrain beside it. Needs --events.",
    ),
]


def table_file(path: str | None, options: Options, reading: Reading) -> TableFile | None:
    """The file at `path` with how it is read; None without a path.

    Raises ConfigurationError where options say how to read a file that no option names.
    """
    if path is not None:
        return TableFile(path, options)
    if options != command_line.options(Typed(), reading):
        raise ConfigurationError(
            f"an option says how {reading.file} is read, but no file is named: give {reading.file}"
        )
    return None


class ExportKind(StrEnum):
    """What `export` writes."""

    items = "items"
    users = "users"
    events = "events"


def refuse_torchrun(context: typer.Context) -> None:
    """Raise ConfigurationError when torchrun runs another command than `two-tower`."""
    command = context.invoked_subcommand
    if command != "two-tower" and "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigurationError(
            f"torchrun runs `training two-tower` only; call `python -m training {command}` alone"
        )
