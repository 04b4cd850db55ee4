"""Measures what a swap of bundles costs reads: `python -m benchmarks.swap`.

The API process, catalogue, users and connections of `benchmarks.reads`, and a second bundle of the
same size. Quiet runs alternate with runs during which one bundle after the other is promoted,
without a pause between the swaps. Rows:

swap          p99 of reads during swaps, beside the p99 of the quiet runs; the target is a ratio of
              2 at most
swap-seconds  from a promotion to the answer by the new bundle, REFRESH_S included; beside it,
              loading such a bundle in a process of its own, which does not rest as a server does
              (core/process/background.py)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

from benchmarks.api.serving import Served, drive, serving
from benchmarks.measurements import record
from benchmarks.ranking.quality import ROOT

COMMAND = "python -m benchmarks.swap"
REFRESH_S = 0.1
LOAD = """
import sys, time
from pathlib import Path
from models.registry import Registry
Registry(Path(sys.argv[1])).load()  # imports, once
began = time.perf_counter()
Registry(Path(sys.argv[1])).load()
print(time.perf_counter() - began)
"""


class Swaps:
    """Promotes one of two versions after the other, as fast as the API follows, until the block is
    left.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []

    def _run(self) -> None:
        while not self._ended.is_set():
            registry = self._served.registry
            version = next(name for name in self._served.versions if name != registry.current())
            began = time.perf_counter()
            registry.promote(version)
            while self._serving() != version:
                time.sleep(0.02)
            self.seconds.append(time.perf_counter() - began)

    def _serving(self) -> str:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._served.port}/health/ready", timeout=30
        ) as answer:
            return str(json.load(answer)["model_version"])

    def __enter__(self) -> Swaps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run")
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each kind, in turn; the median counts"
    )
    arguments = parser.parse_args()
    quiet, swapping, seconds = [], [], []
    with serving(arguments.users, arguments.connections, bundles=2, refresh_s=REFRESH_S) as served:
        for _ in range(arguments.rounds):
            quiet.append(drive(served.port, served.paths, arguments.connections, arguments.seconds))
            with Swaps(served) as swaps:
                swapping.append(
                    drive(served.port, served.paths, arguments.connections, arguments.seconds)
                )
            seconds += swaps.seconds
        command = [sys.executable, "-c", LOAD, str(served.registry.path)]
        alone = float(
            subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        )
    p99_quiet, p99_swapping = (
        statistics.median(run.p99_ms for run in runs) for runs in (quiet, swapping)
    )
    what = f"p99 of quiet reads, {arguments.connections} connections"
    row = record("swap", p99_swapping, "ms", what, p99_quiet, COMMAND)
    record(
        "swap-seconds",
        statistics.median(seconds),
        "s",
        "loading the bundle in a process of its own",
        alone,
        COMMAND,
    )
    for name, runs in (("quiet", quiet), ("swapping", swapping)):
        for run in runs:
            print(
                f"{name:>8}: {run.per_second:8.0f}/s   p50 {run.p50_ms:6.2f} ms   p99 "
                f"{run.p99_ms:6.2f} ms"
            )
    print(
        f"{len(seconds)} swaps of {statistics.median(seconds):.2f} s each; p99 "
        f"{row.ratio:.2f} times the quiet one (target 2)"
    )


if __name__ == "__main__":
    main()
