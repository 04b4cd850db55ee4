"""Measures reads of the API while pages show what happens now: `python -m benchmarks.page_readers`.

One API process over 10,000 items, with an ingest process, a real Redis and a broker. The same reads
run in turn without a page and with ten, which listen to `GET /api/live`. While they do, the process
makes a sample a second, and measures the time from a write of its own to an answer. The value is
the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from benchmarks.api.serving import Served, drive, serving
from benchmarks.measurements import record
from testing.process import module, settings_environment

COMMAND = "python -m benchmarks.page_readers"
TARGET = 1.2


@contextmanager
def page(port: int) -> Iterator[list[bytes]]:
    """One page that listens, in a thread; the samples that it has received."""
    samples: list[bytes] = []
    with httpx.Client(timeout=30) as client, ExitStack() as stack:
        answer = stack.enter_context(client.stream("GET", f"http://127.0.0.1:{port}/api/live"))
        answer.raise_for_status()

        def read() -> None:
            try:
                samples.extend(answer.iter_bytes())
            except httpx.HTTPError:  # the benchmark has closed it
                return

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield samples


def measure(served: Served, pages: int, connections: int, seconds: float) -> float:
    """p99 of reads in ms while so many pages listen."""
    with ExitStack() as stack:
        received = [stack.enter_context(page(served.port)) for _ in range(pages)]
        if pages:
            time.sleep(2)
        report = drive(served.port, served.paths, connections, seconds)
        if pages and min(map(len, received)) < seconds / 2:
            raise RuntimeError(f"a page has received {min(map(len, received))} samples")
    print(f"{pages:3} pages: {report.per_second:8.0f}/s   p99 {report.p99_ms:6.2f} ms")
    return report.p99_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--pages", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=5, help="runs with and without, in turn")
    arguments = parser.parse_args()
    with (
        serving(arguments.users, arguments.connections, api_keys="k") as served,
        tempfile.TemporaryDirectory(prefix="eddyline-ingest-") as folder,
    ):
        environment = settings_environment(served.settings)
        ingest = module("streams", "ingest", directory=Path(folder), environment=environment)
        with ingest.start():
            runs = [
                [
                    measure(served, pages, arguments.connections, arguments.seconds)
                    for pages in (0, arguments.pages)
                ]
                for _ in range(arguments.rounds)
            ]
    without, beside = (statistics.median(column) for column in zip(*runs, strict=True))
    reference = f"p99 of the same reads without a page; at most {TARGET} times"
    record("page-readers-p99", beside, "ms", reference, without, COMMAND)
    print(f"p99 {without:.2f} ms without a page, {beside:.2f} ms with {arguments.pages}")


if __name__ == "__main__":
    main()
