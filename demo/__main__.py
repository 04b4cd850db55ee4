"""`python -m demo`: the whole loop on this machine, from events to answers over HTTP."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from core import cli, settings
from demo.answers import Reader, show
from demo.processes import ROOT, Child
from demo.stack import Stack

app = typer.Typer(name="python -m demo", add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)

LIVE_RATE = 20
"""Events a second while the demo stays up: enough to watch counters move, next to nothing for the machine."""


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the three reads instead of staying up with live traffic.")] = False,
    users: Annotated[int, typer.Option(min=50, help="Developers and investors in the marketplace.")] = 1500,
    items: Annotated[int, typer.Option(min=20, help="Startups in the marketplace.")] = 400,
    events: Annotated[int, typer.Option(min=1000, help="Events before the first training.")] = 60_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same marketplace.")] = 7,
    folder: Annotated[Path, typer.Option(help="Holds all that the demo writes; cleared at the start.")] = ROOT / ".demo",
) -> None:
    """Start a broker and a Redis, simulate a marketplace, ingest, archive, train, serve, and read three answers over HTTP."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    try:
        with Stack(folder.absolute(), settings.load()) as stack, _undisturbed_end():
            population = ["--users", str(users), "--items", str(items), "--seed", str(seed)]
            summary = _fill(stack, population, events)
            reader = _serve(stack)
            _read(stack, reader, summary)
            console.print(f"\nFrom nothing to three answers in {time.monotonic() - started:.0f} s.")
            if not once:
                _stay(stack, reader, population, summary)
            reader.close()
    except KeyboardInterrupt:
        console.print("\nEnded. Nothing is left but", str(folder))


def _fill(stack: Stack, population: list[str], events: int) -> dict[str, Any]:
    """Servers, topics, ingest and archive; the marketplace's past through Kafka into Redis and Parquet; a first training."""
    with _stage("Starting a broker and a Redis") as told:
        told.append(stack.start_servers())
    with _stage("Creating the topics"):
        stack.run("streams", "topics", label="topics")
    ingest = stack.start("streams", "ingest", label="ingest")
    file = stack.directory / "summary.json"
    with _stage(f"Simulating a marketplace: {events:,} events through Kafka") as told:
        stack.run("streams", "simulate", *population, "--events", str(events), "--summary", str(file), label="simulate")
        summary: dict[str, Any] = json.loads(file.read_text())
    with _stage("Ingesting into Redis, exactly once") as told:
        stack.until(lambda: _ingested(stack) >= events, "ingest to catch up", timeout=300)
        told.append(f"{_ingested(stack):,} events")
    with _stage("Archiving to Parquet"):
        stack.run("streams", "archive", "--until-idle", label="archive-first")
        stack.start("streams", "archive", label="archive")
    with _stage("Training and publishing the models"):
        stack.run("training", "retrain", label="retrain")
    ingest.check()
    return summary


def _serve(stack: Stack) -> Reader:
    reader = Reader(f"http://{stack.settings.api_host}:{stack.settings.api_port}")
    with _stage("Serving over HTTP") as told:
        stack.start("api", label="api")
        stack.until(reader.ready, f"the API on {reader.url}")
        told.append(reader.url)
    return reader


def _read(stack: Stack, reader: Reader, summary: dict[str, Any]) -> None:
    """A cold, a warm and a hot user, by the counts that the API itself reports."""
    for kind, user_id, path in _three(stack, summary):
        del kind, user_id, path


def _three(stack: Stack, summary: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    raise NotImplementedError


def _stay(stack: Stack, reader: Reader, population: list[str], summary: dict[str, Any]) -> None:
    raise NotImplementedError


def _ingested(stack: Stack) -> int:
    """Messages that ingest has dealt with, as its own /metrics say; 0 while it does not answer yet."""
    try:
        text = httpx.get(f"http://127.0.0.1:{stack.settings.metrics_port}/metrics", timeout=5.0).text
    except httpx.TransportError:
        return 0
    counts = re.findall(r"^eddyline_ingest_(?:events|duplicates|dead_letters)_total(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    return int(sum(float(count) for count in counts))


@contextmanager
def _stage(what: str) -> Iterator[list[str]]:
    """Show that `what` is going on, then that it is done, how long it took and what was told."""
    told: list[str] = []
    start = time.monotonic()
    with console.status(f"{what} ..."):
        yield told
    console.print(f"[green]done[/] {time.monotonic() - start:5.1f} s  {what}" + (f": {', '.join(told)}" if told else ""), soft_wrap=True)


@contextmanager
def _undisturbed_end() -> Iterator[None]:
    """From here on the way out, a second Ctrl-C does not leave a process behind."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        console.print("Stopping ...", style="dim")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    cli.run(app)
