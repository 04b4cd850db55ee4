"""Command line of `python -m training als`: one fit, by `implicit` or by Spark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigurationError
from core.process.cli import load_settings
from store.tables.command_line import with_reading_options
from store.tables.options import Options
from training.command_options import (
    EVENTS_READING,
    Events,
    HyperparametersFile,
    Threads,
    table_file,
)


class Engine(StrEnum):
    """What fits ALS."""

    implicit = "implicit"
    spark = "spark"


@with_reading_options(reading=EVENTS_READING)
def fit_als(
    *,
    reading: Options,
    output: Annotated[
        Path, typer.Option(help="Folder to write the model to; ALS_MODEL_PATH may name it.")
    ] = Path("data/als"),
    engine: Annotated[
        Engine | None, typer.Option(help="What fits; without it, ALS_ENGINE.")
    ] = None,
    folder: Annotated[
        Path,
        typer.Option(
            "--dataset", help="Folder that `dataset` wrote; implicit reads it.", file_okay=False
        ),
    ] = Path("data/dataset"),
    events: Events = None,
    hyperparameters: HyperparametersFile = None,
    threads: Threads = 0,
) -> None:
    """Fit ALS on all events and write item_factors.npy, user_factors.npy, user_gram.npy, the id
    maps and als.json.

    `implicit` reads the folder `--dataset` and works in memory. `--engine spark` reads the archive,
    or the table `--events`, at SPARK_MASTER: only ids and factors come into memory here.

    Nothing is published: try it with `ALS_MODEL_PATH=data/als python -m api`, or use `retrain`.
    """
    from training import commands

    settings, source = load_settings(), table_file(events, reading, EVENTS_READING)
    if (engine or settings.als_engine) == Engine.spark:
        commands.fit_als_by_spark(settings, source, output, hyperparameters)
        return
    if source is not None:
        raise ConfigurationError(
            "--events is for --engine spark; for implicit run `python -m training dataset "
            "--events FILE` first, and give its folder as --dataset"
        )
    commands.fit_als(settings, folder, output, hyperparameters, threads)
