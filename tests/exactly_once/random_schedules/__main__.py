"""Random schedules: traffic of every kind beside a random list of faults; then Redis, dead letters
and archive equal the oracle.

    python -m tests.exactly_once.random_schedules --schedules 100 --seed 1 --broker apache
    python -m tests.exactly_once.random_schedules --replay 17 --keep

Schedule n of a run has the seed --seed + n. A seed gives the traffic and the faults with their
order; when exactly each strikes depends on the machine. One line a schedule: seed, faults,
messages, seconds, differences. Exit status 1 when there is any difference.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from core.process import logs
from testing.apache import KafkaBroker
from testing.brokers import BrokerKind
from testing.tansu import TansuBroker
from tests.exactly_once.faults import FAULTS
from tests.exactly_once.world import World

MOST_FAULTS = 5


class Result(NamedTuple):
    """What one schedule did.

    `problems`: differences and processes that ended by themselves; none is right.
    """

    seed: int
    faults: list[str]
    messages: int
    counted: int
    deleted: int
    restarts: int
    seconds: float
    problems: list[str]

    def __str__(self) -> str:
        verdict = f"{len(self.problems)} problems" if self.problems else "0 differences"
        return (
            f"seed {self.seed}: {', '.join(self.faults)}; {self.messages} messages, "
            f"{self.counted} counted, {self.deleted} users deleted, "
            f"{self.restarts} restarts, {self.seconds:.1f} s: {verdict}"
        )


def plan(seed: int, *, is_apache: bool) -> list[str]:
    """The faults of a schedule, in their order."""
    pick = random.Random(seed)
    names: list[str] = []
    for _ in range(pick.randrange(2, MOST_FAULTS + 1)):
        allowed = [
            name
            for name, fault in FAULTS.items()
            if (is_apache or not fault.needs_apache) and names.count(name) < fault.most
        ]
        names += pick.choices(allowed, [FAULTS[name].weight for name in allowed])
    # these two keep the recorder, or ingest, from reading what compaction drops
    if "compaction" in names:
        names = [
            "compaction",
            *(
                name
                for name in names
                if name not in ("compaction", "kill-broker", "freeze-past-session")
            ),
        ]
    return names


def run_schedule(broker: KafkaBroker | TansuBroker, directory: Path, seed: int) -> Result:
    """Run one schedule in `directory`; a defect of the harness is raised."""
    started = time.monotonic()
    names = plan(seed, is_apache=isinstance(broker, KafkaBroker))
    world = World(broker, directory, seed, is_compacted="compaction" in names)
    try:
        world.traffic.start()
        world.start_ingest()
        world.start_archiver()
        world.await_progress()  # faults before it would strike idle processes
        world.sleep(0.5)
        for name in names:
            world.sleep(world.random.uniform(0.1, 0.8))
            FAULTS[name].apply(world)
        world.sleep(0.5)
        expected = world.finish()
    finally:
        world.traffic.stop()
        world.close()
    seconds = time.monotonic() - started
    return Result(
        seed,
        names,
        world.traffic.sent,
        expected.counted,
        len(expected.deleted),
        world.restarts,
        seconds,
        world.problems,
    )


def main(
    schedules: Annotated[int, typer.Option(min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of the first schedule.")] = 1,
    broker: Annotated[str, typer.Option(help="apache (KAFKA_HOME and java) or tansu.")] = "apache",
    replay: Annotated[int | None, typer.Option(help="Run the schedule of this seed alone.")] = None,
    keep: Annotated[
        bool, typer.Option(help="Keep the folders of schedules with differences.")
    ] = False,
) -> None:
    """Run schedules and print what they find."""
    logs.configure("error")
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
                result = run_schedule(server, folder, number)
            except Exception:  # noqa: BLE001  the other schedules still run
                typer.echo(
                    f"seed {number}: {', '.join(plan(number, is_apache=kind == 'apache'))}; "
                    f"failed:\n{traceback.format_exc()}"
                )
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
