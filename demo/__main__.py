"""Runs the whole loop on this machine, from events to answers over HTTP: `python -m demo`."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from core import settings
from core.process import cli
from demo.answers import SHOWN, Reader, show
from demo.stack import PREFIX, Servers, Stack
from testing.process import ROOT

app = typer.Typer(name="python -m demo", add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)
if not console.is_terminal:
    console.width = 120

KINDS = ("cold", "warm", "hot")
LOOK_S = 2.0
"""Seconds between two readings of the counters of ingest."""
LIVE_RATE = 20
"""Events a second while the demo stays up: counters move, and the machine stays idle."""


@app.command()
def demo(
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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    configured = settings.load() if servers is Servers.environment else settings.defaults()
    if port is not None:
        configured = configured.model_copy(update={"api_port": port})
    try:
        with Stack(folder.absolute(), configured) as stack, _uninterrupted_end():
            population = ["--users", str(users), "--items", str(items), "--seed", str(seed)]
            summary = _fill(stack, population, events)
            reader = _serve(stack)
            _read(stack, reader, summary)
            console.print(f"\nFrom nothing to three answers in {time.monotonic() - started:.0f} s.")
            if not once:
                _stay(stack, reader, population, summary)
            reader.close()
    except KeyboardInterrupt:
        console.print("\nEnded. The files are in", str(folder))


def _fill(stack: Stack, population: list[str], events: int) -> dict[str, Any]:
    """Start servers, topics, ingest and archive, send simulated events, train the first bundle."""
    with _Stage("Starting a broker and a Redis") as stage:
        stage.result(stack.start_servers())
    with _Stage("Creating the topics") as stage:
        own = ["--own", PREFIX] if stack.external else []
        stack.run("streams", "topics", *own, label="topics", show=stage.now)
    stack.start("streams", "ingest", label="ingest", METRICS_PORT=str(stack.metrics_port))
    file = stack.directory / "summary.json"
    with _Stage(f"Simulating a marketplace: {events:,} events through Kafka") as stage:
        stack.run(
            "streams",
            "simulate",
            *population,
            "--events",
            str(events),
            "--summary",
            str(file),
            label="simulate",
            show=stage.now,
        )
        summary: dict[str, Any] = json.loads(file.read_text())
        stage.result(
            ", ".join(f"{count:,} {kind}" for kind, count in summary["segments"].items()) + " users"
        )
    with _Stage("Ingesting into Redis, exactly once") as stage:

        def caught_up() -> bool:
            stage.now(f"{(count := _ingested(stack)):,} events")
            return count >= int(summary["events"])

        stack.until(caught_up, "ingest to catch up", timeout=300)
        stage.result(f"{_ingested(stack):,} events")
    with _Stage("Archiving to Parquet") as stage:
        stack.run("streams", "archive", "--until-idle", label="archive-first", show=stage.now)
        stack.start("streams", "archive", label="archive")
    with _Stage("Training and publishing the models") as stage:
        stack.run("training", "retrain", label="retrain", show=stage.now)
    return summary


def _serve(stack: Stack) -> Reader:
    reader = Reader(f"http://{stack.settings.api_host}:{stack.settings.api_port}")
    stack.start("streams", "live", label="live")  # readers fold in until it runs
    with _Stage("Serving over HTTP") as stage:
        stack.start("api", label="api")
        stack.until(reader.ready, f"the API on {reader.url}")
        stage.result(reader.url)
    return reader


def _read(stack: Stack, reader: Reader, summary: dict[str, Any]) -> None:
    """Read for a cold, a warm and a hot developer, and print the curl command of each read."""
    for kind in KINDS:
        user_id = summary[kind]
        if user_id is None:
            console.print(
                (f"\nNo user is {kind} after {summary['events']:,} events; raise --events."),
                style="yellow",
            )
            continue
        path = (
            f"/api/recommendations/startups/for-developer/{quote(user_id, safe='')}?limit={SHOWN}"
        )
        show(console, kind, reader.url + path, reader.recommendations(path))
    stack.check()


def _stay(stack: Stack, reader: Reader, population: list[str], summary: dict[str, Any]) -> None:
    """Send live traffic and print its rate, until Ctrl-C or until a process dies."""
    stack.start(
        "streams",
        "simulate",
        *population,
        "--events",
        "0",
        "--no-catalogue",
        "--rate",
        str(LIVE_RATE),
        "--forever",
        label="traffic",
    )
    hot = summary["hot"] or summary["warm"] or summary["cold"]
    folder, python = _short(stack.directory), _short(Path(sys.executable))
    console.print(
        f"""
[bold]Now live:[/] {LIVE_RATE} events/s, also of new users and new startups. Ctrl-C ends it.
  the API, documented by itself   {reader.url}/docs
  one user, decoded               env $(cat {folder}/env) {python} -m streams inspect user {hot}
  keys in Redis                   redis-cli -u {_redis_url(stack)} HGETALL user:{hot}
  train again while it runs       env $(cat {folder}/env) {python} -m training retrain
  an event of your own            curl -X POST {reader.url}/api/events \\
                                    -H 'Content-Type: application/json' \\
                                    -H "$(sed -n 's/^API_KEYS=/X-API-Key: /p' {folder}/env)" \\
                                    -d '{_event(hot)}'
  logs of every process           {folder}/logs
""",
        soft_wrap=True,
        markup=True,
    )
    with console.status("") as status:
        while True:
            before, since = _ingested(stack), time.monotonic()
            stack.watch(LOOK_S)
            now = _ingested(stack)
            status.update(
                f"{now:,} events ingested, "
                f"{(now - before) / (time.monotonic() - since):.0f}/s; Ctrl-C ends the demo"
            )


def _event(user_id: str) -> str:
    event = {
        "event_id": "mine-1",
        "user_id": user_id,
        "item_id": "startup-9",
        "event_type": "like",
        "timestamp": int(time.time()),
    }
    return json.dumps(event).replace("[", "\\[")


def _redis_url(stack: Stack) -> str:
    """The URL, or `$REDIS_URL` where the environment names it: it may contain a password."""
    return (
        '"$REDIS_URL"'
        if "REDIS_URL" in stack.external
        else stack.settings.redis_url.get_secret_value()
    )


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _ingested(stack: Stack) -> int:
    """Messages that ingest has processed, from its /metrics; 0 until it answers."""
    try:
        text = httpx.get(f"http://127.0.0.1:{stack.metrics_port}/metrics", timeout=5.0).text
    except httpx.TransportError:
        return 0
    counts = re.findall(
        r"^eddyline_ingest_(?:events|duplicates|dead_letters)_total(?:\{.*\})? (\S+)$",
        text,
        re.MULTILINE,
    )
    return int(sum(float(count) for count in counts))


class _Stage:
    """One line of the demo: a stage while it runs, then its time and its result."""

    def __init__(self, what: str) -> None:
        self._what, self._results = what, ""
        self._status = console.status(f"{what} ...")

    def now(self, text: str) -> None:
        """Show the progress while the stage runs."""
        room = max(0, console.width - len(self._what) - 10)  # one line, or the spinner scrolls
        self._status.update(f"{self._what} ... [dim]{escape(text[:room])}[/]")

    def result(self, text: str) -> None:
        """Set the text that stays on the screen."""
        self._results = f": {text}"

    def __enter__(self) -> Self:
        self._since = time.monotonic()
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._status.stop()
        word = "[green]done[/]" if kind is None else "[red]failed[/]"
        console.print(
            f"{word} {time.monotonic() - self._since:5.1f} s  {self._what}{escape(self._results)}",
            soft_wrap=True,
        )


@contextmanager
def _uninterrupted_end() -> Iterator[None]:
    """Ignore signals while everything stops, so that a second Ctrl-C leaves no process behind."""
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
