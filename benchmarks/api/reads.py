"""Measures reads of the API: `python -m benchmarks.reads`.

One API process, a real Redis, 16 connections, personal ALS answers over 10,000 items. Server and
client are processes of their own. Every read is the whole path: HTTP, key check, one round trip to
Redis for counters, history and profile, fold-in, scores over the catalogue, filters, top 10,
reasons in words, catalogue metadata, JSON. The empty route (`/health/live`) runs in turn with it on
the same server, through the same middleware, and its rate is the reference.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.api.serving import drive, serving
from benchmarks.measurements import record

COMMAND = "python -m benchmarks.reads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each route, in turn; the median counts"
    )
    arguments = parser.parse_args()
    empties, reads = [], []
    with serving(arguments.users, arguments.connections) as served:
        for _ in range(arguments.rounds):
            empties.append(
                drive(served.port, ["/health/live"], arguments.connections, arguments.seconds)
            )
            reads.append(drive(served.port, served.paths, arguments.connections, arguments.seconds))
    empty = statistics.median(run.per_second for run in empties)
    rate = statistics.median(run.per_second for run in reads)
    p99 = statistics.median(run.p99_ms for run in reads)
    reference = f"empty route of the same server, {arguments.connections} connections"
    record("reads", rate, "reads/s", reference, empty, COMMAND)
    empty_p99 = statistics.median(run.p99_ms for run in empties)
    record("reads-p99", p99, "ms", "p99 of the empty route", empty_p99, COMMAND)
    for name, runs in (("empty", empties), ("reads", reads)):
        for run in runs:
            print(
                f"{name:>6}: {run.per_second:8.0f}/s   p50 {run.p50_ms:6.2f} ms   p99 "
                f"{run.p99_ms:6.2f} ms"
            )
    print(f"reads {rate:.0f}/s = {rate / empty:.2f} of the empty route, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
