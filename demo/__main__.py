"""Runs the whole loop on this machine, from events to answers over HTTP: `python -m demo`."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from core import settings
from core.process import cli
from demo import loop
from demo.screen import console, uninterrupted_end
from demo.stack import Servers, Stack
from testing.process import ROOT

app = typer.Typer(name="python -m demo", add_completion=False, pretty_exceptions_enable=False)
DURATION_S = 40
"""Seconds until the three answers, measured on two idle cores."""


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="End after the three reads instead of staying up with live traffic."
        ),
    ] = False,
    users: Annotated[
        int, typer.Option(min=50, help="Developers and investors in the marketplace.")
    ] = 1500,
    items: Annotated[int, typer.Option(min=20, help="Startups in the marketplace.")] = 400,
    events: Annotated[
        int, typer.Option(min=1000, help="Events before the first training.")
    ] = 60_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same marketplace.")] = 7,
    folder: Annotated[
        Path, typer.Option(help="Holds all that the demo writes; cleared at the start.")
    ] = ROOT / ".demo",
    servers: Annotated[
        Servers,
        typer.Option(
            help=(
                "embedded: servers of its own, whatever .env and the environment say. environment: "
                "the Kafka and the Redis that they name, with all their settings; refused where "
                "these hold other data."
            )
        ),
    ] = Servers.embedded,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the API (default: 8000 or any free one)."),
    ] = None,
) -> None:
    """Run the whole loop on this machine.

    Start a broker and a Redis, simulate a marketplace, ingest, archive, train, serve, and read
    three answers over HTTP. Nothing that runs already is touched unless --servers environment
    names it.
    """
    if context.invoked_subcommand is not None:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    console.print(
        f"A marketplace on this machine: {events:,} events, models, answers over HTTP.\n"
        f"With 60,000 events it takes about {DURATION_S} s on two idle cores."
    )
    configured = settings.load() if servers is Servers.environment else settings.defaults()
    if port is not None:
        configured = configured.model_copy(update={"api_port": port})
    try:
        with Stack(folder.absolute(), configured) as stack, uninterrupted_end():
            population = ["--users", str(users), "--items", str(items), "--seed", str(seed)]
            summary = loop.fill(stack, population, events)
            reader = loop.serve(stack)
            loop.train(stack, reader)
            loop.read(stack, reader, summary)
            console.print(f"\nFrom nothing to three answers in {time.monotonic() - started:.0f} s.")
            if not once:
                loop.stay(stack, reader, population, summary)
            reader.close()
    except KeyboardInterrupt:
        console.print("\nEnded. The files are in", str(folder))


@app.command("books")
def write_books(
    folder: Annotated[Path, typer.Argument(help="Where books, readers and events are written.")],
    readers: Annotated[int, typer.Option(min=1, help="Readers of the shop.")] = 3000,
    books: Annotated[int, typer.Option(min=30, help="Books of the shop.")] = 1200,
    seed: Annotated[int, typer.Option(help="The same seed and --end write the same files.")] = 7,
    end: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Day at whose midnight the events end (UTC)."),
    ] = None,
) -> None:
    """Write the CSV files of a bookshop, for docs/your-own-domain.md."""
    from demo import books as bookshop

    until = bookshop.midnight() if end is None else end.replace(tzinfo=UTC)
    rows = bookshop.write(bookshop.Shop(readers, books, seed, until), folder)
    for name, count in rows.items():
        typer.echo(f"{folder / name}.csv: {count:,} rows")


@app.command("servers")
def run_servers(
    folder: Annotated[Path, typer.Option(help="Holds what they write.")] = Path("data/servers"),
) -> None:
    """Run a broker and a Redis for a trial, without Docker, at the addresses of the settings.

    Without KAFKA_HOME they forget everything when they stop.
    """
    from demo import servers

    servers.run(settings.load(), folder)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    cli.run(app)
