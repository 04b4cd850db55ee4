"""The options that several commands of `python -m training` share.

Nothing here is slow to import, so that --help is fast.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

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
