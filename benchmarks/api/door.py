"""Measures ordinary reads beside attacks on the API: `python -m benchmarks.door`.

One API process answers 200 reads a second, first quiet, then beside each attack of door_attacks.
The reads are personal answers for users of 500 events over 10,000 items. They are sent at fixed
times, whatever the server does, and a latency counts from the time at which the read was due: a
server that stops for a second shows it in all reads of that second. Server, reads and attack are
processes of their own. The target is a p99 of at most three times its quiet value, and no read that
fails.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time

import msgspec
import psutil
import uvloop
from pydantic import SecretStr

from benchmarks.api.door_attacks import ATTACKS, KEY
from benchmarks.api.serving import Served, serving
from benchmarks.measurements import record

COMMAND = "python -m benchmarks.door"
PER_S = 200
USERS, EVENTS = 2000, 500
TARGET = 3.0
"""The largest allowed ratio of the p99 beside an attack to the quiet p99."""
WARM_UP_S = 1.5
"""Seconds of an attack before reads count: its connections are opened within the first."""


class Report(msgspec.Struct):
    """Result of ordinary reads. Latencies in milliseconds."""

    reads: int
    failures: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    first_failure: str = ""


class Reader:
    """A client with a pool of connections; a closed connection is replaced."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def read(self, path: str) -> None:
        """One answer. Raises OSError, ValueError, TimeoutError."""
        async with asyncio.timeout(30):
            connection = None
            while self._free and (connection is None or connection[0].at_eof()):
                connection = self._free.pop()
            if connection is None or connection[0].at_eof():
                connection = await asyncio.open_connection(self._host, self._port)
            reader, writer = connection
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise ConnectionError("the connection was closed") from error
            if not head.startswith(b"HTTP/1.1 200"):
                raise ValueError(head[:100].decode("latin-1"))
            at = head.lower().index(b"content-length:") + 15
            body = await reader.readexactly(int(head[at : head.index(b"\r", at)]))
            if b'"degraded":false' not in body:
                raise ValueError("a degraded answer")
            self._free.append(connection)


async def ordinary(host: str, port: int, paths: list[str], seconds: float) -> Report:
    """PER_S reads a second for `seconds`, each at its time."""
    reader = Reader(host, port)
    latencies: list[float] = []
    failures: list[str] = []
    begin = time.perf_counter() + 0.1  # uvloop's own clock counts milliseconds

    async def one(number: int) -> None:
        due = begin + number / PER_S
        await asyncio.sleep(due - time.perf_counter())
        try:
            await reader.read(paths[number % len(paths)])
            latencies.append(time.perf_counter() - due)
        except (OSError, ValueError, TimeoutError) as error:
            failures.append(f"{type(error).__name__}: {error}")

    await asyncio.gather(*(one(number) for number in range(int(seconds * PER_S))))
    latencies.sort()

    def quantile(share: float) -> float:
        return (
            1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)]
            if latencies
            else float("inf")
        )

    return Report(
        len(latencies),
        len(failures),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        failures[0] if failures else "",
    )


def measure(served: Served, attack: str | None, seconds: float) -> Report:
    """Ordinary reads for `seconds`, beside `attack`."""
    address = f"127.0.0.1:{served.port}"
    attacker = None
    if attack is not None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.door_attacks",
            attack,
            address,
            "--seconds",
            str(seconds + 2 * WARM_UP_S),
        ]
        attacker = subprocess.Popen(command)
        time.sleep(WARM_UP_S)
    try:
        command = [
            sys.executable,
            "-m",
            "benchmarks.door",
            "--reads",
            address,
            "--seconds",
            str(seconds),
        ]
        done = subprocess.run(
            command,
            input="\n".join(served.paths),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=seconds + 120,
        )
        return msgspec.json.decode(done.stdout, type=Report)
    finally:
        if attacker is not None:
            attacker.wait(120)


def compare(seconds: float, attacks: list[str]) -> bool:
    """Print and record one row an attack. Returns whether all met the target."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (min(4096, hard) if hard != resource.RLIM_INFINITY else 4096, hard)
    )
    with serving(
        USERS, 4, trained=USERS, events=EVENTS, api_keys=frozenset({SecretStr(KEY)})
    ) as served:
        measure(served, None, 3.0)  # connections, caches and the interpreter warm up
        quiets = [measure(served, None, seconds)]
        print(
            f"{'':>20} {'reads':>6} {'failed':>6} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} "
            f"{'of quiet':>8} {'MB':>6}"
        )
        show("quiet", quiets[0], 1.0, served)
        met = True
        for attack in attacks:
            report = measure(served, attack, seconds)
            quiets.append(measure(served, None, seconds / 2))
            # before and after, because other work on the machine varies
            quiet = statistics.median(one.p99_ms for one in quiets[-2:])
            met &= report.p99_ms <= TARGET * quiet and not report.failures
            show(attack, report, report.p99_ms / quiet, served)
            record(
                f"door-{attack}",
                report.p99_ms,
                "ms",
                f"p99 of {PER_S} quiet reads/s",
                quiet,
                COMMAND,
            )
        show("quiet", quiets[-1], 1.0, served)
    return met


def show(name: str, report: Report, ratio: float, served: Served) -> None:
    """One line of the table."""
    memory = psutil.Process(served.pid).memory_info().rss / 1e6
    print(
        f"{name:>20} {report.reads:6} {report.failures:6} {report.p50_ms:8.2f} "
        f"{report.p99_ms:8.2f} {report.longest_ms:8.1f} "
        f"{ratio:8.2f} {memory:6.0f} {report.first_failure}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds",
        type=float,
        default=8.0,
        help="of each attack; the quiet reads between them take half of it",
    )
    parser.add_argument("--attacks", nargs="*", choices=list(ATTACKS), default=list(ATTACKS))
    # host:port: only the reads, for a process of their own
    parser.add_argument("--reads", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reads:
        host, _, port = arguments.reads.rpartition(":")
        report = uvloop.run(ordinary(host, int(port), sys.stdin.read().split(), arguments.seconds))
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return 0
    met = compare(arguments.seconds, arguments.attacks)
    print(
        f"target {'met' if met else 'missed'}: p99 of ordinary reads at most {TARGET:g} "
        f"times its quiet value, and none fails"
    )
    return 0 if met else os.EX_SOFTWARE


if __name__ == "__main__":
    sys.exit(main())
