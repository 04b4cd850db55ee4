"""`python -m streams`: everything that touches Kafka. Each command imports its body when it runs, so that --help is instant."""

from __future__ import annotations

from typing import Annotated

import typer

from core import cli, logs, settings
from core.settings import Settings

app = typer.Typer(name="python -m streams", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Bring events, items and users into Kafka, and from Kafka into Redis and the archive.")


@app.callback()
def _commands() -> None:
    """Keep `archive` a subcommand, however few there are."""


@app.command()
def archive(
    until_idle: Annotated[bool, typer.Option(help="Stop when every partition of this process is archived up to the log's end.")] = False,
    accept_gap: Annotated[bool, typer.Option(help="Record offsets that the log no longer holds as an empty range, and go on.")] = False,
) -> None:
    """The interactions topic to Parquet files, every offset once. Any number of processes share the partitions."""
    from streams.archive import run
    run(_settings(), until_idle, accept_gap)


def _settings() -> Settings:
    loaded = settings.load()
    logs.configure(loaded.log_level)
    return loaded


if __name__ == "__main__":
    cli.run(app)
