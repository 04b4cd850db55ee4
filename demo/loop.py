"""The stages of the demo: fill, train, serve, read, stay up."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from demo.answers import SHOWN, Reader, show
from demo.screen import Stage, console
from demo.stack import PREFIX, Stack

KINDS = ("cold", "warm", "hot")
LOOK_S = 2.0
"""Seconds between two readings of the counters of ingest."""
PROGRESS_S = 0.5
"""Seconds between two readings of the progress of the training."""
LIVE_RATE = 20
"""Events a second while the demo stays up: counters move, and the machine stays idle."""


def fill(stack: Stack, population: list[str], events: int) -> dict[str, Any]:
    """Start servers, topics, ingest and archive, and send simulated events."""
    with Stage("Starting a broker and a Redis") as stage:
        stage.result(stack.start_servers())
    with Stage("Creating the topics") as stage:
        own = ["--own", PREFIX] if stack.external else []
        stack.run("streams", "topics", *own, label="topics", show=stage.now)
    stack.start("streams", "ingest", label="ingest", METRICS_PORT=str(stack.metrics_port))
    file = stack.directory / "summary.json"
    with Stage(f"Simulating a marketplace: {events:,} events through Kafka") as stage:
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
    with Stage("Ingesting into Redis, exactly once") as stage:

        def caught_up() -> bool:
            stage.now(f"{(count := _ingested(stack)):,} events")
            return count >= int(summary["events"])

        stack.until(caught_up, "ingest to catch up", timeout=300)
        stage.result(f"{_ingested(stack):,} events")
    with Stage("Archiving to Parquet") as stage:
        stack.run("streams", "archive", "--until-idle", label="archive-first", show=stage.now)
        stack.start("streams", "archive", label="archive")
    return summary


def serve(stack: Stack) -> Reader:
    """Start the API; before there is a model it answers with what is popular."""
    reader = Reader(f"http://{stack.settings.api_host}:{stack.settings.api_port}")
    with Stage("Serving over HTTP") as stage:
        stack.start("api", label="api")
        stack.until(reader.ready, f"the API on {reader.url}")
        stage.result(reader.url)
    return reader


def train(stack: Stack, reader: Reader) -> None:
    """Train and publish the first bundle, and wait until the API answers from it."""
    with Stage("Training, judging and publishing the models") as stage:
        read_at = time.monotonic()

        def show_progress(line: str) -> None:
            nonlocal read_at
            if time.monotonic() - read_at > PROGRESS_S:
                read_at = time.monotonic()
                stage.now(reader.retrain() or line)

        stack.run("training", "retrain", label="retrain", show=show_progress)
        stack.until(lambda: reader.version() is not None, "the API to load the models")
        stage.result(str(reader.version()))
    stack.start("streams", "live", label="live")  # readers fold in until it runs


def read(stack: Stack, reader: Reader, summary: dict[str, Any]) -> None:
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


def stay(stack: Stack, reader: Reader, population: list[str], summary: dict[str, Any]) -> None:
    """Send live traffic and print its rate, until Ctrl-C or until a process dies.

    A trainer waits for the retrains that the page requests.
    """
    stack.start("training", "worker", label="trainer")
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
    version = reader.version()
    console.print(
        f"""
[bold]Now live:[/] {LIVE_RATE} events/s, also of new users and new startups. Ctrl-C ends it.
  the page: now, models, users    {reader.url}/
    an admin's key for its buttons sed -n 's/^API_ADMIN_KEYS=//p' {folder}/env
  the evaluation of the models    {reader.url}/#/models
    the same as a file            {folder}/models/{version}/evaluation/report.html
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
