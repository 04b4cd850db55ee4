"""The options that the commands of `python -m engines` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer


class EngineName(StrEnum):
    """The engines as choices of `--engine`."""

    ensemble = "ensemble"
    als = "als"
    two_tower = "two_tower"
    content_based = "content_based"
    popular = "popular"


History = Annotated[
    str,
    typer.Option(
        "--history", "-H", metavar="IDS", help="Items of the user's history, oldest first: a,b,c"
    ),
]
Interests = Annotated[
    str,
    typer.Option(
        "--interests",
        "-i",
        metavar="WORDS",
        help="Interests that the user declares: fintech,payments",
    ),
]
EngineOption = Annotated[
    EngineName | None,
    typer.Option(
        "--engine", "-e", help="Engine to use first; unset: the one that the router picks"
    ),
]
EventType = Annotated[
    str | None,
    typer.Option(
        "--event-type",
        help=(
            "Event type of the history; unset: like, or the first configured type with a "
            "weight above 0"
        ),
    ),
]
UseCaseName = Annotated[
    str | None,
    typer.Option(
        "--use-case",
        "-u",
        help="A configured use case: sets item type, weights and default filters",
    ),
]
BundleFolder = Annotated[
    Path | None,
    typer.Option(
        "--bundle", help="Folder of a bundle; unset: the live bundle in MODELS_PATH", metavar="DIR"
    ),
]
Version = Annotated[
    str | None, typer.Option("--version", help="A published version in MODELS_PATH")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Number of items")]
Diversity = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="How much the list avoids similar items; unset: DIVERSITY",
        metavar="0..1",
    ),
]
Explore = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of the ranks that randomly drawn new items get; unset: EXPLORE",
        metavar="0..1",
    ),
]
Categories = Annotated[
    str,
    typer.Option(
        "--category",
        "-c",
        metavar="WORDS",
        help="Only items in at least one of these categories: a,b",
    ),
]
ItemTypes = Annotated[
    str, typer.Option("--item-type", metavar="WORDS", help="Only items of one of these types: a,b")
]
Exclude = Annotated[str, typer.Option(metavar="IDS", help="Items to exclude: a,b")]
IncludeSeen = Annotated[
    bool | None,
    typer.Option(help="Whether to show items of the history; unset: the use case decides, else no"),
]
AvailableOnly = Annotated[
    bool | None,
    typer.Option(help="Whether to hide unavailable items; unset: the use case decides, else yes"),
]


class FilterOptions(NamedTuple):
    """The command-line options that filter items."""

    category: str
    item_type: str
    exclude: str
    include_seen: bool | None
    available_only: bool | None
