"""`python -m training retrain`, `worker` and `request`: their options and help."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from core.process import tables as results
from core.process.cli import load_settings
from core.process.tables import Wide
from store.tables import options as tables
from store.tables.command_line import with_reading_options
from training.command_options import (
    EVENTS_READING,
    ITEMS_READING,
    Events,
    HyperparametersFile,
    Items,
    NoLease,
    Threads,
    Users,
    table_file,
)


@with_reading_options(events_reading=EVENTS_READING, items_reading=ITEMS_READING)
def retrain(
    *,
    events_reading: tables.Options,
    items_reading: tables.Options,
    events: Events = None,
    items: Items = None,
    hyperparameters: HyperparametersFile = None,
    users: Users = 250,
    threads: Threads = 0,
    force: Annotated[
        bool,
        typer.Option("--force", help="Publish even if the gate refuses; the manifest says so."),
    ] = False,
    no_lease: NoLease = False,
    wide: Wide = False,
) -> None:
    """Fit, evaluate and publish a new live bundle, or keep the old one and say why.

    The steps: snapshot, dataset, fit, evaluate, gate, publish, prune.

    Killed at any point, it leaves the live bundle as it was; run it again.
    """
    from training import commands
    from training.job.context import Options

    options = Options(
        events=table_file(events, events_reading, EVENTS_READING),
        items=table_file(items, items_reading, ITEMS_READING),
        hyperparameters=hyperparameters,
        users=users,
        threads=threads,
        force=force,
        lease=not no_lease,
    )
    commands.run_retrain(load_settings(), options, results.console(wide))


@with_reading_options(events_reading=EVENTS_READING, items_reading=ITEMS_READING)
def worker(
    *,
    events_reading: tables.Options,
    items_reading: tables.Options,
    events: Events = None,
    items: Items = None,
    hyperparameters: HyperparametersFile = None,
    users: Users = 250,
    threads: Threads = 0,
    force: Annotated[
        bool,
        typer.Option("--force", help="Publish even what the gate refuses; the manifests say so."),
    ] = False,
    first: Annotated[
        bool,
        typer.Option(
            "--first",
            help="While no bundle is live, retrain without a request once there are events.",
        ),
    ] = False,
) -> None:
    """Run the retrains that are requested on RETRAIN_REQUESTS_TOPIC: by RETRAIN_SCHEDULE, by
    `training request`, by the API.

    Any number of workers may run; one retrain runs at a time, and it answers all requests made
    before it began. Ends on SIGTERM between two steps or sweeps; another worker then handles the
    request, or this one after a restart.
    """
    from training.job import worker as retrain_worker
    from training.job.context import Options

    options = Options(
        events=table_file(events, events_reading, EVENTS_READING),
        items=table_file(items, items_reading, ITEMS_READING),
        hyperparameters=hyperparameters,
        users=users,
        threads=threads,
        force=force,
    )
    # its output is a log, which the tables of an evaluation do not belong in
    console = results.console(quiet=not sys.stdout.isatty())
    retrain_worker.run(load_settings(service=True), options, console, first)


def request(reason: Annotated[str, typer.Option(help="Why; written to the log.")] = "") -> None:
    """Request a retrain from the workers; prints the request's topic:partition:offset."""
    from training import commands

    commands.request_retrain(load_settings(), reason)
