"""Takes a part of every core, as another program on the same machine would.

`with neighbour():` starts one process a core, which computes for 10 ms and then sleeps; `python -m
benchmarks.neighbour` is one such process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from testing.process import Child

SHARE = 0.5
BUSY_S = 0.01


@contextmanager
def neighbour(folder: Path, share: float = SHARE) -> Iterator[None]:
    """`share` of each core is wanted by another process meanwhile; its logs are in `folder`."""
    command = [sys.executable, "-m", "benchmarks.neighbour", "--share", str(share)]
    with ExitStack() as started:
        for number in range(os.cpu_count() or 1):
            child = Child(f"neighbour-{number}", command, folder)
            started.enter_context(child)
        yield


def compute(share: float) -> None:
    """Use `share` of a core until killed: 10 ms of processor time, then a pause."""
    pause = BUSY_S * (1 - share) / share
    while True:
        end = time.process_time() + BUSY_S
        while time.process_time() < end:
            sum(range(200))
        time.sleep(pause)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=SHARE, help="of a core, above 0, at most 1")
    compute(parser.parse_args().share)


if __name__ == "__main__":
    main()
