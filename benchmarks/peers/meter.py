"""Measures one processor from inside its process, and writes what it measured as JSON."""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

import msgspec

from benchmarks.peers.counts import State

IDLE_S = 15.0
"""Seconds without an event after which a resumed run has read all."""


class Report(msgspec.Struct):
    """`seconds` and `cpu_seconds` (of all threads) from the first event to the durable end;
    `samples`: state of some users at the end.
    """

    events: int
    seconds: float
    cpu_seconds: float
    samples: dict[str, State]


class Meter:
    """Counts events; `samples` has the state of the users that are to be compared at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._report: Path = options.report
        self._limit: int = options.events
        self._seconds: float = options.seconds
        self._kill_after: int = options.kill_after
        self._counted = self._skipped = 0
        self._counted_at = time.perf_counter()
        self._began = self._cpu = 0.0
        self.over = False
        """True once all events are counted, or the time is up."""
        self.samples: dict[str, State] = {user: State() for user in options.samples.split(",")}

    def begin(self) -> None:
        """Begin the measurement; later calls do nothing."""
        if not self._began:
            self._began, self._cpu = time.perf_counter(), time.process_time()

    def count(self, events: int = 1) -> None:
        """Call after each event or batch. Without `begin` the first one is not measured."""
        self._counted += events
        if not self._began:
            self.begin()
            self._skipped = events
        if 0 < self._kill_after <= self._counted:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._counted >= self._limit:
            self.over = True
        elif self._counted & 255 == 0:
            self._counted_at = time.perf_counter()
            self.over = self._counted_at - self._began > self._seconds

    @property
    def idle_s(self) -> float:
        """Seconds since one of the latest 256 events."""
        return time.perf_counter() - self._counted_at

    def end(self) -> None:
        """Call once all that was counted is durable: write the report."""
        report = Report(
            self._counted - self._skipped,
            time.perf_counter() - self._began,
            time.process_time() - self._cpu,
            self.samples,
        )
        temporary = self._report.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(report))
        temporary.replace(self._report)


def options(description: str | None) -> argparse.Namespace:
    """The command line that every processor here takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--brokers", required=True, help="host:port of the broker")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True, help="of the topic")
    parser.add_argument("--events", type=int, required=True, help="in the topic")
    parser.add_argument("--seconds", type=float, required=True, help="end after so long at most")
    parser.add_argument("--samples", required=True, help="users whose state is reported: a,b,c")
    parser.add_argument("--state", type=Path, required=True, help="folder for durable state")
    parser.add_argument("--report", type=Path, required=True, help="file for the measured values")
    parser.add_argument("--guarantee", default="", help="processing guarantee, where it is one")
    parser.add_argument("--kill-after", type=int, default=0, help="SIGKILL itself at this event")
    parser.add_argument("--resume", action="store_true", help="end when nothing comes any more")
    return parser.parse_args()
