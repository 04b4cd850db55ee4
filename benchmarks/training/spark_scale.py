"""Measures time and peak memory of ALS by Spark and by `implicit`: `python -m
benchmarks.spark_scale`.

Random events (a million users, 100,000 items of which few are popular) lie in a real archive, which
is written piece by piece. Each engine then runs its commands in processes of their own:

spark      python -m training als --engine spark
implicit   python -m training dataset, then python -m training als

Time is that of the commands, start included, by the clock and of all processes. Memory is the
largest sum of the resident memory of the process and its children, Java's among them, looked at
every 0.2 s.

`--events 100000000 --engine spark` is the size at which `implicit` needs more memory than most
machines have; `--record` writes rows of results/results.json where both engines ran.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from benchmarks.measurements import record
from benchmarks.ranking.quality import ROOT
from core.settings import Settings
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.state import connection
from store.state.apply.deletions import mark_ready
from testing.process import settings_environment
from testing.redis import RedisServer

PARTITIONS = 4
PIECE = 1_000_000
"""Events of one file of the archive."""
LOOK_EVERY_S = 0.2
COMMAND = "python -m benchmarks.spark_scale --record"


class Sizes(NamedTuple):
    events: int
    users: int
    items: int


class Cost(NamedTuple):
    """`seconds` by the clock, `cpu_s` of all processes, peak resident memory in MB."""

    seconds: float
    cpu_s: float
    peak_mb: float


def fill(settings: Settings, sizes: Sizes) -> None:
    """Write the archive, file by file."""
    archive, rng = Archive(settings.archive_url), np.random.default_rng(7)
    shares = 1.0 / np.arange(1, sizes.items + 1) ** 0.8
    cumulated = np.cumsum(shares / shares.sum())
    for partition in range(PARTITIONS):
        count = sizes.events // PARTITIONS
        for first in range(0, count, PIECE):
            end = min(first + PIECE, count)
            user = rng.integers(0, sizes.users // PARTITIONS, end - first) * PARTITIONS + partition
            item = np.minimum(np.searchsorted(cumulated, rng.random(end - first)), sizes.items - 1)
            table = _piece(partition, np.arange(first, end), user, item)
            archive.append(settings.interactions_topic, partition, first, end, table)
            print(f"  partition {partition}: {end:,} of {count:,} events", flush=True)


def _piece(
    partition: int,
    offset: npt.NDArray[np.int64],
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
) -> pa.Table:
    count = len(offset)
    time_of = 1.7e9 + offset.astype(np.float64)
    offsets = pa.array(offset)
    columns = {
        "partition": pa.array(np.full(count, partition, np.int32)),
        "offset": offsets,
        "broker_time": pa.array(time_of),
        "event_id": pc.cast(offsets, pa.string()),
        "user_id": pc.cast(pa.array(user), pa.string()),
        "item_id": pc.cast(pa.array(item), pa.string()),
        "event_type": pa.array(["rating"]).take(pa.array(np.zeros(count, np.int64))),
        "timestamp": pa.array(time_of),
    }
    return pa.table(
        [columns.get(field.name, pa.nulls(count, field.type)) for field in SCHEMA], SCHEMA
    )


def run(settings: Settings, *commands: tuple[str, ...]) -> Cost:
    """Seconds and peak memory of `python -m training ...`, one command after the other."""
    began, peak, cpu = time.monotonic(), 0, 0.0
    for command in commands:
        child = subprocess.Popen(
            [sys.executable, "-m", "training", *command],
            cwd=ROOT,
            env={**os.environ, **settings_environment(settings)},
        )
        process = psutil.Process(child.pid)
        of_command = 0.0
        while child.poll() is None:
            resident, used = _use(process)
            peak, of_command = max(peak, resident), max(of_command, used)
            time.sleep(LOOK_EVERY_S)
        cpu += of_command
        if child.returncode:
            raise SystemExit(f"training {' '.join(command)} ended with {child.returncode}")
    return Cost(time.monotonic() - began, cpu, peak / 2**20)


def _use(process: psutil.Process) -> tuple[int, float]:
    """Resident bytes and processor seconds of the process and its children, as of now."""
    resident, used = 0, 0.0
    try:
        for member in (process, *process.children(recursive=True)):
            resident += member.memory_info().rss
            used += sum(member.cpu_times()[:2])
    except psutil.NoSuchProcess:
        pass
    return resident, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--factors", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--memory", default="2g", help="SPARK_MEMORY")
    parser.add_argument("--engine", choices=("spark", "implicit", "both"), default="both")
    parser.add_argument("--folder", type=Path, help="archive to use again, or to write")
    parser.add_argument("--record", action="store_true", help="write rows of results.json")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as temporary,
        RedisServer(Path(temporary) / "redis") as server,
    ):
        work = Path(temporary)
        archive = arguments.folder or work / "archive"
        settings = Settings(
            redis_url=SecretStr(server.url),
            archive_url=str(archive),
            als_factors=arguments.factors,
            als_iterations=arguments.iterations,
            als_regularization=10.0,
            als_alpha=4.0,
            spark_master=os.environ.get("SPARK_MASTER", "local[2]"),
            spark_memory=arguments.memory,
        )
        with connection.connect(settings) as client:
            mark_ready(client)
        if not archive.exists():
            fill(settings, Sizes(arguments.events, arguments.users, arguments.items))
        costs = {}
        if arguments.engine in ("spark", "both"):
            costs["spark"] = run(
                settings, ("als", "--engine", "spark", "--output", str(work / "spark"))
            )
        if arguments.engine in ("implicit", "both"):
            dataset = str(work / "dataset")
            costs["implicit"] = run(
                settings,
                ("dataset", "--output", dataset),
                ("als", "--dataset", dataset, "--output", str(work / "implicit")),
            )
    for name, cost in costs.items():
        print(
            f"{name}: {arguments.events:,} events, {arguments.factors} factors, "
            f"{arguments.iterations} sweeps: {cost.seconds:.0f} s, {cost.cpu_s:.0f} s of processor "
            f"time, at most {cost.peak_mb:,.0f} MB",
            flush=True,
        )
    if arguments.record and len(costs) == 2:
        spark, implicit = costs["spark"], costs["implicit"]
        about = f"implicit on the same {arguments.events:,} events, dataset included"
        record("spark-als", spark.seconds, "s", about, implicit.seconds, COMMAND)
        record("spark-als-memory", spark.peak_mb, "MB", about, implicit.peak_mb, COMMAND)


if __name__ == "__main__":
    main()
