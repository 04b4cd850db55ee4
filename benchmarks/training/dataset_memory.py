"""Measures the memory of the dataset step: `python -m benchmarks.dataset_memory` writes the row
`dataset-memory`.

`python -m training dataset` from an archive of synthetic events, real Parquet of four partitions,
with Redis as the source of deletions; once with all events and once with a fifth of them. Each run
is a process of its own. A user has at most 20 items, so the pairs of a user and an item do not grow
with the events either.

value      peak resident memory, in MB, with all events
reference  the same with a fifth of them

Prints the seconds of each run, too. The archive takes about 45 bytes an event, the dataset 28, and
the temporary files of the step 56: all in TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from benchmarks.measurements import record
from core.settings import Settings
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.state import connection
from store.state.apply.deletions import mark_ready
from testing.process import ROOT, settings_environment
from testing.redis import RedisServer

COMMAND = "python -m benchmarks.dataset_memory"
PARTITIONS, FILE_EVENTS, ITEMS_OF_USER, FIFTH = 4, 1_000_000, 20, 5
START = 1.7e9


class World(NamedTuple):
    """How many users and items the events have."""

    users: int
    items: int


class Run(NamedTuple):
    """One dataset step: its time, its peak resident memory, and the summary of the dataset."""

    seconds: float
    peak_mb: float
    summary: dict[str, object]


def write_file(archive: Archive, topic: str, world: World, partition: int, events: int) -> None:
    """Append `events` random events of the partition's users: some users and items are popular."""
    first = archive.position(topic, partition)
    rng = np.random.default_rng([partition, first])
    own = world.users // PARTITIONS
    user = (own * rng.random(events) ** 2).astype(np.int64) * PARTITIONS + partition
    turn = (ITEMS_OF_USER * rng.random(events) ** 2).astype(np.int64)
    mixed = (user * 6364136223846793005 + (turn + 1) * 1442695040888963407) & (2**52 - 1)
    item = (world.items * (mixed / 2.0**52) ** 3).astype(np.int64)
    offsets = np.arange(first, first + events)
    times = pa.array(START + offsets / 50.0)
    ids = pa.array((offsets * 6364136223846793005 + partition) & (2**62 - 1)).cast(pa.string())
    columns = {
        "partition": pa.array(np.full(events, partition, np.int32)),
        "offset": pa.array(offsets),
        "broker_time": times,
        "event_id": ids,
        "user_id": pa.array(user).cast(pa.string()),
        "item_id": pa.array(item).cast(pa.string()),
        "event_type": pa.array(["view", "click", "like"]).take(pa.array(turn % 3)),
        "timestamp": times,
        "value": pc.if_else(pa.array(turn == 7), 2.5, pa.scalar(None, pa.float64())),
    }
    rows = pa.table(
        [columns.get(field.name, pa.nulls(events, field.type)) for field in SCHEMA], SCHEMA
    )
    archive.append(topic, partition, first, first + events, rows)


def fill(settings: Settings, world: World, events: int) -> None:
    """Extend the archive to `events` events, in files of at most FILE_EVENTS."""
    archive, topic = Archive(settings.archive_url), settings.interactions_topic
    for partition in range(PARTITIONS):
        while missing := events // PARTITIONS - archive.position(topic, partition):
            write_file(archive, topic, world, partition, min(missing, FILE_EVENTS))


def make_dataset(settings: Settings, folder: Path) -> Run:
    """Run the step and measure it."""
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "training", "dataset", "--output", str(folder)],
        cwd=ROOT,
        env={**os.environ, **settings_environment(settings)},
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the dataset step ended with {child.returncode}")
    summary = json.loads((folder / "dataset.json").read_text("utf-8"))
    return Run(time.monotonic() - began, usage.ru_maxrss / 1024, summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    world, runs = World(options.users, options.items), {}
    with (
        tempfile.TemporaryDirectory() as temporary,
        RedisServer(Path(temporary) / "redis") as server,
    ):
        work = Path(temporary)
        settings = Settings(
            redis_url=SecretStr(server.url), archive_url=str(work / "archive"), models_path=work
        )
        with connection.connect(settings) as client:
            mark_ready(client)
        for events in (options.events // FIFTH, options.events):
            fill(settings, world, events)
            runs[events] = run = make_dataset(settings, work / "dataset")
            counts = ", ".join(f"{run.summary[name]:,} {name}" for name in ("users", "items"))
            print(
                f"{run.summary['events']:,} events, {counts}: {run.seconds:.0f} s, "
                f"{run.seconds / events * 1e6:.2f} us an event, peak {run.peak_mb:,.0f} MB",
                flush=True,
            )
    few, many = runs.values()
    row = record(
        "dataset-memory",
        many.peak_mb,
        "MB",
        "the same step on a fifth of the events",
        few.peak_mb,
        f"{COMMAND} --events {options.events}",
    )
    print(f"{row.ratio:.2f} of the memory for {FIFTH} times as many events")


if __name__ == "__main__":
    main()
