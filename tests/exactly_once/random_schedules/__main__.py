"""Runs random schedules and compares Redis, dead letters and archive with the oracle after each.

    python -m tests.exactly_once.random_schedules --schedules 100 --seed 1 --broker apache
    python -m tests.exactly_once.random_schedules --replay 17 --keep
    python -m tests.exactly_once.random_schedules --redis cluster --schedules 30

`--redis shards`: one server has four shards. `--redis cluster`: they are in a Redis Cluster of
three primaries and three replicas, whose nodes fail and whose slots move at 2,000 events a second,
while a thread reads through an API.

Schedule n of a run has the seed --seed + n. A seed determines the traffic and the faults with their
order; the exact time of each fault depends on the machine. Prints one line for each schedule: seed,
faults, messages, seconds, differences. The exit status is 1 if there is any difference.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.process import logs
from testing.apache import KafkaBroker
from testing.brokers import BrokerKind
from testing.tansu import TansuBroker
from tests.exactly_once.random_schedules.schedule import plan, run_schedule
from tests.exactly_once.random_schedules.world_settings import LAYOUTS

Redis = Literal["server", "shards", "cluster"]


def main(
    schedules: Annotated[int, typer.Option(min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of the first schedule.")] = 1,
    broker: Annotated[str, typer.Option(help="apache (KAFKA_HOME and java) or tansu.")] = "apache",
    replay: Annotated[int | None, typer.Option(help="Run the schedule of this seed alone.")] = None,
    redis: Annotated[Redis, typer.Option(help="Where the state is.")] = "server",
    keep: Annotated[
        bool, typer.Option(help="Keep the folders of schedules with differences.")
    ] = False,
) -> None:
    """Run schedules and print their results."""
    logs.configure("error")
    layout = LAYOUTS[redis]
    kind: BrokerKind = "tansu" if broker == "tansu" else "apache"
    directory = Path(tempfile.mkdtemp(prefix="schedules-"))
    started, bad, faults, messages = time.monotonic(), [], Counter[str](), 0
    server = (
        TansuBroker(directory / "broker")
        if kind == "tansu"
        else KafkaBroker(
            directory / "broker",
            properties={"log.cleaner.backoff.ms": "300", "log.retention.check.interval.ms": "1000"},
        )
    ).start()
    try:
        for number in [replay] if replay is not None else range(seed, seed + schedules):
            folder = directory / f"seed-{number}"
            folder.mkdir()
            try:
                result = run_schedule(server, folder, number, layout)
            except Exception:  # noqa: BLE001  the other schedules still run
                names = plan(number, is_apache=kind == "apache", is_cluster=layout.is_cluster)
                typer.echo(f"seed {number}: {', '.join(names)}; failed:\n{traceback.format_exc()}")
                bad.append(number)
                continue
            typer.echo(str(result))
            faults.update(result.faults)
            messages += result.messages
            for problem in result.problems:
                typer.echo(f"    {problem[:1500]}")
            if result.problems:
                bad.append(number)
            if not (keep and result.problems):
                shutil.rmtree(folder)
    finally:
        server.stop()
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    minutes = (time.monotonic() - started) / 60
    typer.echo(
        f"{messages} messages, {faults.total()} faults "
        f"({', '.join(f'{name} {count}' for name, count in faults.most_common())})"
    )
    typer.echo(
        f"{minutes:.1f} min, {len(bad)} schedules with differences{f': seeds {bad}' if bad else ''}"
    )
    raise typer.Exit(1 if bad else 0)


if __name__ == "__main__":
    typer.run(main)
