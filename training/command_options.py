"""What several commands of `python -m training` share: options, the settings and the console.

Nothing here is slow to import, so that --help is fast.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from core.settings import Settings

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
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
NoLease = Annotated[
    bool,
    typer.Option(
        "--no-lease",
        help="Work without Redis: nothing stops a second retrain beside it. Needs --events.",
    ),
]


class ExportKind(StrEnum):
    """What `export` writes."""

    items = "items"
    users = "users"
    events = "events"


def load_settings() -> Settings:
    """The settings of the environment; the log is configured by them.

    Raises ConfigurationError.
    """
    from core import settings
    from core.process import logs

    loaded = settings.load()
    logs.configure(loaded.log_level)
    return loaded


def console() -> Console:
    """The terminal."""
    from rich.console import Console

    return Console()
