"""Measures a long evaluation in several processes: `python -m benchmarks.evaluation_processes`.

Users with 50 random interactions among many items are answered by popularity, content, ALS and the
router, in one process and in `--processes`, in turns. Fails when a result differs.

value      seconds of processor time on the longest path with several processes: of this one, and of
           the busiest other, its start included
reference  seconds of processor time with one

Where every process has a core these are the seconds that it takes, also when other work slows this
run down. It prints those, too, and the memory of a process of the pool: what it has for itself
(USS), and its part of what it shares (PSS).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.measurements import record
from core.process import logs
from core.settings import Settings
from core.types import Item
from models.bundle import Bundle
from models.content import ContentModel
from training import als
from training.data import dataset
from training.data.dataset import Dataset
from training.data.popularity import popular
from training.evaluation import evaluate, population
from training.evaluation.evaluate import Inputs
from training.evaluation.population import JudgedUsers

COMMAND = "python -m benchmarks.evaluation_processes"
EVENTS_EACH = 50
CATEGORIES = 200
WATCH_S = 0.2


def events(users: int, items: int) -> Dataset:
    """Random interactions of every user, one a minute."""
    rng = np.random.default_rng(1)
    count = users * EVENTS_EACH
    table = pa.table(
        {
            "user_id": pa.array(np.tile(np.arange(users), EVENTS_EACH).astype(str)),
            "item_id": pa.array((items * rng.random(count) ** 2).astype(int).astype(str)),
            "event_type": pa.array(["like"] * count),
            "timestamp": 1.7e9 + 60.0 * np.arange(count),
            "value": pa.nulls(count, pa.float64()),
            "use_case": pa.nulls(count, pa.string()),
        }
    )
    for place, name in enumerate(table.column_names):
        if name.endswith("_id") or name in ("event_type", "use_case"):
            table = table.set_column(place, name, table[name].dictionary_encode().combine_chunks())
    return dataset.build([table], Settings().use_cases)


def world(users: int, items: int) -> tuple[Bundle, Inputs, JudgedUsers]:
    """A bundle fitted before the cut, and all users to judge it by."""
    settings, data = Settings(), events(users, items)
    entries = [
        Item(item_id=str(row), item_type="item", categories=[f"category {row % CATEGORIES}"])
        for row in range(items)
    ]
    split, content = data.split(settings.holdout_fraction), ContentModel.fit(entries)
    at_cut = popular(data, settings, split.train)
    model = als.fit(data.interactions(split.train), als.Hyperparameters(iterations=1), seed=1)
    judged = population.draw(data, split, content, settings, population.Sample(users, seed=1))
    bundle = Bundle.of(catalogue=entries, als=model, content=content, popular=at_cut)
    return bundle, Inputs(entries, at_cut.scores, data, split, settings), judged


@dataclass
class Children:
    """The largest memory in bytes, and processor time in seconds, of a child process."""

    uss: int = 0
    pss: int = 0
    seconds: float = 0.0


@contextmanager
def children_watched() -> Iterator[Children]:
    """What the children of this process use during the block."""
    largest, ended = Children(), Event()

    def watch() -> None:
        while not ended.wait(WATCH_S):
            for child in psutil.Process().children():
                try:
                    memory, times = child.memory_full_info(), child.cpu_times()
                except psutil.Error:  # it has ended
                    continue
                largest.uss = max(largest.uss, memory.uss)
                largest.pss = max(largest.pss, memory.pss)
                largest.seconds = max(largest.seconds, times.user + times.system)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield largest
    finally:
        ended.set()
        watcher.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    logs.configure("warning")
    bundle, inputs, judged = world(arguments.users, arguments.items)
    wall: dict[int, list[float]] = {1: [], arguments.processes: []}
    longest: dict[int, list[float]] = {1: [], arguments.processes: []}
    results, pool = {}, Children()
    for _ in range(arguments.rounds):
        for count, seconds in wall.items():
            with children_watched() as children:
                began, own = time.monotonic(), time.thread_time()
                results[count] = evaluate.evaluate(bundle, inputs, judged, most_processes=count)
                own = time.thread_time() - own
                seconds.append(time.monotonic() - began)
            longest[count].append(own + children.seconds)
            pool = children
    one, several = results[1], results[arguments.processes]
    for engine, lists in one.ranked.items():
        if not np.array_equal(lists, several.ranked[engine]):
            raise SystemExit(f"the results of {engine} differ between one and several processes")
    print(f"{len(judged.users)} users, {arguments.items} items")
    print(f"seconds by processes: {wall}, of processor time: {longest}")
    mb = 2**20
    print(f"a process of the pool: USS {pool.uss / mb:.0f} MB, PSS {pool.pss / mb:.0f} MB")
    row = record(
        "evaluation-processes",
        statistics.median(longest[arguments.processes]),
        f"s of processor time on the longest path with {arguments.processes} processes",
        "s of processor time with one",
        statistics.median(longest[1]),
        COMMAND,
    )
    print(f"ratio {row.ratio}")


if __name__ == "__main__":
    main()
