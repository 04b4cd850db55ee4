"""Plans and runs one random schedule: traffic, faults, and the comparison with the oracle."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from testing.apache import KafkaBroker
from testing.tansu import TansuBroker
from tests.exactly_once.random_schedules.faults import FAULTS
from tests.exactly_once.random_schedules.world import World
from tests.exactly_once.random_schedules.world_settings import ONE_SERVER, Layout

MOST_FAULTS = 5


class Result(NamedTuple):
    """The result of one schedule.

    `problems`: differences, and processes that ended without a reason; empty if all is correct.
    """

    seed: int
    faults: list[str]
    messages: int
    counted: int
    deleted: int
    restarts: int
    seconds: float
    rate: float
    """Messages per second while there was traffic."""
    reads: int
    problems: list[str]

    def __str__(self) -> str:
        verdict = f"{len(self.problems)} problems" if self.problems else "0 differences"
        return (
            f"seed {self.seed}: {', '.join(self.faults)}; {self.messages} messages "
            f"({self.rate:.0f}/s), {self.counted} counted, {self.deleted} users deleted, "
            f"{self.restarts} restarts, {self.reads} reads, {self.seconds:.1f} s: {verdict}"
        )


def plan(seed: int, *, is_apache: bool, is_cluster: bool = False) -> list[str]:
    """The faults of a schedule, in their order."""
    other = "server" if is_cluster else "cluster"
    rng = random.Random(seed)
    names: list[str] = []
    for _ in range(rng.randrange(2, MOST_FAULTS + 1)):
        allowed = [
            name
            for name, fault in FAULTS.items()
            if (is_apache or not fault.needs_apache)
            and fault.of != other
            and names.count(name) < fault.most
        ]
        names += rng.choices(allowed, [FAULTS[name].weight for name in allowed])
    # with these two, the recorder or ingest would not read some records before they are compacted
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


def run_schedule(
    broker: KafkaBroker | TansuBroker,
    directory: Path,
    seed: int,
    layout: Layout = ONE_SERVER,
    faults: Sequence[str] = (),
) -> Result:
    """Run one schedule in `directory`. `faults`: instead of those that the seed plans.

    Raises an error of the harness itself.
    """
    started = time.monotonic()
    names = list(faults) or plan(
        seed, is_apache=isinstance(broker, KafkaBroker), is_cluster=layout.is_cluster
    )
    world = World(broker, directory, seed, layout, is_compacted="compaction" in names)
    try:
        world.start()
        world.await_progress()  # earlier faults would strike idle processes
        world.sleep(0.5)
        for name in names:
            world.sleep(world.random.uniform(0.1, 0.8))
            FAULTS[name].apply(world)
        world.sleep(0.5)
        expected = world.finish()
    finally:
        world.traffic.stop()
        world.close()
    return Result(
        seed,
        names,
        world.traffic.sent,
        expected.counted,
        len(expected.deleted),
        world.processes.restarts,
        time.monotonic() - started,
        world.traffic.sent / max(world.traffic.seconds, 0.001),
        world.reads.answers if world.reads else 0,
        world.problems,
    )
