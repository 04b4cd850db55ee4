"""Plans partitions, processes and memory for a load, and checks the plan by a simulation.

The plan divides the load by measured costs (COSTS: rows of benchmarks/results/results.json) and by
the part of a core that it may use. The simulation then lets events come in bursts to the ingest
processes of one Redis and follows each transaction: an ingest process polls at most every 8 ms,
plans what it has got in transactions of at most 250 events, one core, first come first served; all
transactions of all processes then wait for the one thread of Redis, which reads slow down by their
share. Printed are how busy both are and how long events wait from the broker to the commit. No
network and no neighbour are in it. More than one Redis primary is a Redis Cluster.
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

COSTS = {
    "redis-memory-per-user": 1930.5104,
    "unit-api-memory": 199.1562,
    "unit-event-ingest": 8.6907,
    "unit-event-log-bytes": 55.6168,
    "unit-event-redis": 3.5855,
    "unit-item-bytes": 394.3336,
    "unit-item-counts-bytes": 20877.9088,
    "unit-read-api": 545.3807,
    "unit-read-redis": 25.3665,
    "unit-transaction-ingest": 810.5788,
    "unit-transaction-redis": 320.2307,
}
"""Values of the rows of these names in benchmarks/results/results.json; a test compares them."""

USERS = (1_000_000, 10_000_000, 100_000_000)
RATES = (10_000, 100_000, 1_000_000)
READS_AN_EVENT = 0.2
UTILISATION = 0.5
"""Part of a core that ingest, Redis and the API may use: above it waiting grows fast, and nothing
is left for a fail-over or a backlog.
"""
HEADROOM = 1.5
"""Memory of Redis by its data: fragmentation, buffers of replicas, pages copied while the AOF is
written anew.
"""
PRIMARY_GB = 64
ITEMS = 10_000
GATHER_S = 0.008
TRANSACTION_EVENTS = 250
POLL_EVENTS = 4_000
BURST = 20
"""Events that come at once, on average: what a backend's producer sends together."""
MICRO = 1e-6


class Plan(NamedTuple):
    """What a load needs."""

    users: int
    events_s: int
    reads_s: float
    partitions: int
    ingest: int
    primaries: int
    primary_gb: float
    api: int
    log_mb_s: float


class Waits(NamedTuple):
    """What the simulation measures: parts of a core, milliseconds from broker to commit."""

    ingest: float
    redis: float
    p50_ms: float
    p99_ms: float


def event_s(place: str) -> float:
    """Seconds of a core for an event of a full transaction in `place`: ingest, redis."""
    fixed = COSTS[f"unit-transaction-{place}"] / TRANSACTION_EVENTS
    return MICRO * (COSTS[f"unit-event-{place}"] + fixed)


def plan(users: int, events_s: int, reads_s: float) -> Plan:
    """The smallest numbers that keep every process within UTILISATION and PRIMARY_GB."""
    data = users * COSTS["redis-memory-per-user"] + ITEMS * (
        COSTS["unit-item-bytes"] + COSTS["unit-item-counts-bytes"]
    )
    busy = events_s * event_s("redis") + reads_s * MICRO * COSTS["unit-read-redis"]
    primaries = max(math.ceil(busy / UTILISATION), math.ceil(HEADROOM * data / (PRIMARY_GB * 1e9)))
    # as many for each primary
    ingest = primaries * math.ceil(events_s * event_s("ingest") / UTILISATION / primaries)
    api = math.ceil(reads_s * MICRO * COSTS["unit-read-api"] / UTILISATION)
    return Plan(
        users,
        events_s,
        reads_s,
        max(4, 2 ** math.ceil(math.log2(2 * ingest))),  # twice the processes: the load grows
        ingest,
        primaries,
        HEADROOM * data / primaries / 1e9,
        api,
        events_s * COSTS["unit-event-log-bytes"] / 1e6,
    )


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> Times:
    """Times of events that come in bursts: a Poisson process of bursts of geometric sizes."""
    bursts = rng.poisson(rate / BURST * seconds)
    begins = np.sort(rng.uniform(0, seconds, bursts))
    return np.repeat(begins, rng.geometric(1 / BURST, bursts))


def transactions(events: Times) -> tuple[Times, Times, npt.NDArray[np.int64]]:
    """One ingest process: when each transaction goes to Redis, its seconds of a core, and the index
    of the event after its last one.
    """
    ready, cpu, ends = [], [], []
    free = answered = at = 0.0
    done = 0
    while done < len(events):
        at = max(free, float(events[done]), answered + GATHER_S)
        answered = at
        polled = min(int(np.searchsorted(events, at, side="right")), done + POLL_EVENTS)
        while done < polled:
            end = min(done + TRANSACTION_EVENTS, polled)
            work = MICRO * (
                COSTS["unit-transaction-ingest"] + COSTS["unit-event-ingest"] * (end - done)
            )
            at += work
            ready.append(at)
            cpu.append(work)
            ends.append(end)
            done = end
        free = at
    return np.array(ready), np.array(cpu), np.array(ends)


def serve(ready: Times, service: Times) -> Times:
    """When one server that takes first what came first has done each task."""
    done = np.empty(len(ready))
    free = 0.0
    for index in np.argsort(ready, kind="stable"):
        free = max(free, ready[index]) + service[index]
        done[index] = free
    return done


def simulate(planned: Plan, seconds: float = 20.0, seed: int = 1) -> Waits:
    """The load of one of the plan's primaries, with its share of ingest processes and reads."""
    rng = np.random.default_rng(seed)
    processes = planned.ingest // planned.primaries
    rate = planned.events_s / planned.primaries / processes
    reads = planned.reads_s / planned.primaries * MICRO * COSTS["unit-read-redis"]
    streams = [arrivals(rate, seconds, rng) for _ in range(processes)]
    stages = [transactions(events) for events in streams]
    ready = np.concatenate([stage[0] for stage in stages])
    sizes = np.concatenate([np.diff(ends, prepend=0) for _, _, ends in stages])
    work = MICRO * (COSTS["unit-transaction-redis"] + COSTS["unit-event-redis"] * sizes)
    committed = serve(ready, work / (1 - reads))
    waits = np.repeat(committed, sizes) - np.concatenate(streams)
    p50, p99 = np.quantile(waits, (0.5, 0.99))
    cpu = sum(float(stage[1].sum()) for stage in stages)
    return Waits(
        cpu / processes / seconds, float(work.sum()) / seconds + reads, 1e3 * p50, 1e3 * p99
    )


def limits() -> str:
    """Where one Redis primary ends, in words."""
    reads_us = READS_AN_EVENT * COSTS["unit-read-redis"]
    events_s = UTILISATION / (event_s("redis") + MICRO * reads_us)
    items = ITEMS * (COSTS["unit-item-bytes"] + COSTS["unit-item-counts-bytes"])
    users = (PRIMARY_GB * 1e9 / HEADROOM - items) / COSTS["redis-memory-per-user"]
    return (
        f"One Redis primary of {PRIMARY_GB} GB ends at {events_s:,.0f} events/s (half of its "
        f"thread, reads included) or {users / 1e6:.0f} million users of 50 events."
    )


COLUMNS = (
    "users",
    "events/s",
    "reads/s",
    "partitions",
    "ingest processes",
    "Redis primaries, GB each",
    "API processes",
    "Kafka's log, MB/s",
    "busy: ingest, Redis",
    "ms to commit: p50, p99",
    "REDIS_SHARDS",
)


def shards(need: Plan) -> int:
    """REDIS_SHARDS: some for each primary, so that shards can be moved, and a divisor of the
    partitions.
    """
    if need.primaries == 1:
        return 1
    return min(need.partitions, int(2 ** math.ceil(math.log2(4 * need.primaries))))


def table(reads_an_event: float = READS_AN_EVENT, seconds: float = 20.0) -> list[str]:
    """The plan for every number of users and every rate, as lines of Markdown."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for users in USERS:
        for rate in RATES:
            need = plan(users, rate, reads_an_event * rate)
            waits = simulate(need, seconds)
            lines.append(
                f"| {users:,} | {rate:,} | {need.reads_s:,.0f} | {need.partitions} | {need.ingest} "
                f"| {need.primaries} x {need.primary_gb:.1f} | {need.api} | {need.log_mb_s:.1f} "
                f"| {waits.ingest:.0%}, {waits.redis:.0%} "
                f"| {waits.p50_ms:.0f}, {waits.p99_ms:.0f} | {shards(need)} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads-an-event", type=float, default=READS_AN_EVENT)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the simulation")
    parser.add_argument(
        "--load",
        type=float,
        nargs=2,
        metavar=("USERS", "EVENTS"),
        help="plan and simulate this load alone: users, and events a second",
    )
    arguments = parser.parse_args()
    if arguments.load is None:
        print("\n".join(table(arguments.reads_an_event, arguments.seconds)))
        print(limits())
        return
    users, rate = map(int, arguments.load)
    need = plan(users, rate, arguments.reads_an_event * rate)
    for result in (need, simulate(need, arguments.seconds)):
        for name, value in result._asdict().items():
            print(f"{name:12} {value:,.2f}")


if __name__ == "__main__":
    main()
