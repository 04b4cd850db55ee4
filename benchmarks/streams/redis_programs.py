"""Measures what an event costs each Redis program: `python -m benchmarks.redis_programs`.

The transactions of ingest (250 events of 10,000 users on 10,000 items, and their popularity) are
applied to the wheel's Valkey, to the same without the jemalloc of the machine, and to redis-server,
in turn; the medians count. The reference is redis-server, which must be on PATH.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from pydantic import SecretStr

from benchmarks.measurements import record
from benchmarks.peers.events import interactions
from core.deletions import IdHasher
from core.settings import Settings
from store.state import connection
from store.state.apply.applier import Applier
from store.state.apply.batches import Event, KnownDeletions, OffsetRange
from store.state.apply.deletions import mark_ready
from store.state.apply.pending import Mark, PendingPopularity
from store.state.apply.planner import Planner
from testing.redis import RedisServer, program_on_path, wheel_program

BATCH = 250
COMMAND = "python -m benchmarks.redis_programs"
WHEEL, BARE_WHEEL, REFERENCE = "wheel", "wheel, libc", "redis-server"


class _WithoutPreload(RedisServer):
    def _environment(self) -> dict[str, str]:
        return dict(os.environ)


def cost(server: RedisServer, events: list[Event]) -> float:
    """Processor time of the server, microseconds an event."""
    with server:
        settings = Settings(redis_url=SecretStr(server.url))
        topic = settings.interactions_topic
        client = connection.connect(settings)
        mark_ready(client)
        planner = Planner(settings.use_cases)
        hasher = IdHasher(settings.deletion_salt)
        applier = Applier(client, planner, settings.history_cap, hasher)
        popularity = PendingPopularity(
            settings.use_cases, settings.popularity_half_life_days, Mark()
        )
        process = psutil.Process(server.child.pid)
        began = sum(process.cpu_times()[:2])
        for first in range(0, len(events), BATCH):
            batch = events[first : first + BATCH]
            for offset, event in enumerate(batch, first):
                popularity.add(offset, event.interaction, event.broker_time)
            offsets = OffsetRange(topic, 0, first, first + len(batch))
            known = KnownDeletions(applier.deletions_version, {})
            applier.apply(planner.plan(offsets, batch, known, popularity.piece(offsets.next)))
        used = sum(process.cpu_times()[:2]) - began
        applier.close()
        client.close()
    return used / len(events) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each program, in turn")
    arguments = parser.parse_args()
    reference = program_on_path(REFERENCE)
    if reference is None:
        sys.exit("benchmarks.redis_programs needs redis-server 7 or newer on PATH")
    events = [Event(event, time.time()) for event in interactions(arguments.events)]
    costs: dict[str, list[float]] = {WHEEL: [], BARE_WHEEL: [], REFERENCE: []}
    for _ in range(arguments.rounds):
        for name, of_program in costs.items():
            kind = _WithoutPreload if name == BARE_WHEEL else RedisServer
            binary = reference if name == REFERENCE else wheel_program()
            with tempfile.TemporaryDirectory(prefix="eddyline-redis-") as folder:
                of_program.append(cost(kind(Path(folder), binary=binary), events))
        print("   ".join(f"{name} {runs[-1]:.2f} us" for name, runs in costs.items()), flush=True)
    medians = {name: statistics.median(runs) for name, runs in costs.items()}
    for row, name in (("redis-cpu-wheel", WHEEL), ("redis-cpu-wheel-libc", BARE_WHEEL)):
        about = "redis-server on the same transactions; at most 1.3 times that"
        record(row, medians[name], "us of CPU an event", about, medians[REFERENCE], COMMAND)
        print(f"{name}: {medians[name] / medians[REFERENCE]:.2f} of redis-server")


if __name__ == "__main__":
    main()
