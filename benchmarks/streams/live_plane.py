"""What the live worker takes of a core, and how many reads find a fresh vector for it.

A part of `python -m benchmarks.freshness`: of the 20,000 users with events, 2,000 are in a session,
and are read at random, 200 times a second in all.
"""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from typing import NamedTuple

import psutil

from benchmarks.streams.freshness_probes import KEY
from streams.pace import Pace

READ_USERS = 2_000
READS = 200.0
THREADS = 4
VECTORS = re.compile(r'^eddyline_api_vectors_total\{state="(\w+)"\} (\S+)$', re.MULTILINE)


class Plane(NamedTuple):
    """`fresh`: share of the reads with a fresh vector; `core`: part of a core that the live worker
    took; `reads`: reads a second.
    """

    fresh: float
    core: float
    reads: float


def get(connection: http.client.HTTPConnection, path: str) -> bytes:
    """The body of an answer. Raises RuntimeError unless it is a 200."""
    connection.request("GET", path, headers={"X-API-Key": KEY})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"GET {path}: {answer.status} {body[:300]!r}")
    return body


def vectors(port: int) -> dict[str, float]:
    """State -> reads so far whose stored vector was in that state."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    text = get(connection, "/metrics").decode()
    connection.close()
    return {state: float(count) for state, count in VECTORS.findall(text)}


def measure(port: int, live_pid: int, seconds: float) -> Plane:
    """Read for `seconds`, after as long a time that is not counted, in which sessions begin."""
    ended, live = threading.Event(), psutil.Process(live_pid)

    def read(number: int) -> None:
        pick, pace = random.Random(number), Pace(READS / THREADS, ended)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while pace.wait():
            user = f"user-{pick.randrange(READ_USERS)}"
            get(connection, f"/api/recommendations/startups/for-developer/{user}?limit=10")
        connection.close()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    before, busy, began = vectors(port), sum(live.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    after, spent = vectors(port), sum(live.cpu_times()[:2])
    took = time.monotonic() - began
    ended.set()
    for thread in threads:
        thread.join()
    counts = {state: count - before.get(state, 0.0) for state, count in after.items()}
    reads = sum(counts.values())
    return Plane(counts.get("fresh", 0.0) / reads, (spent - busy) / took, reads / took)
