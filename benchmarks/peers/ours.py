"""Measures `streams ingest` from outside its process, at work on the events of the peers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil
from redis import Redis

from benchmarks.peers.counts import HISTORY, State
from benchmarks.peers.events import SAMPLES
from benchmarks.peers.meter import Report
from core.settings import Settings
from store.state import keys
from store.state.entities import users
from testing.process import module, settings_environment


def cpu_seconds(pid: int) -> float:
    """Seconds of a core that the process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def applied(redis: Redis, settings: Settings) -> int:
    """Events that are in Redis."""
    pipe = redis.pipeline(transaction=False)
    for number in range(settings.topic_partitions):
        pipe.hget(keys.of(redis).position(settings.interactions_topic, number), "position")
    return sum(int(answer or 0) for answer in pipe.execute())


def measure(settings: Settings, redis: Redis, events: int, folder: Path) -> Report:
    """Apply all events of the topic with one ingest process to an empty Redis."""
    redis.flushall()
    child = module(
        "streams", "ingest", directory=folder, environment=settings_environment(settings)
    ).start()
    try:
        while (first := applied(redis, settings)) == 0:
            child.check()
            time.sleep(0.01)
        began, cpu = time.perf_counter(), cpu_seconds(child.pid)
        while applied(redis, settings) < events:
            child.check()
            time.sleep(0.02)
        took, cpu = time.perf_counter() - began, cpu_seconds(child.pid) - cpu
    finally:
        child.stop()
    return Report(events - first, took, cpu, states(redis, SAMPLES))


def crash(settings: Settings, redis: Redis, events: int, kill_after: int, folder: Path) -> None:
    """Apply all events with an ingest process that is killed once, and its successor."""
    redis.flushall()
    child = module(
        "streams", "ingest", directory=folder, environment=settings_environment(settings)
    )
    try:
        for until in (kill_after, events):
            child.start()
            while applied(redis, settings) < until:
                child.check()
                time.sleep(0.005)
            child.kill()
    finally:
        child.stop()


def states(redis: Redis, names: Iterable[str]) -> dict[str, State]:
    """The counts and the latest events of users in Redis."""
    return {user: _state(redis, user) for user in names}


def _state(redis: Redis, user: str) -> State:
    state = users.read(redis, user, HISTORY)
    lines = [(line.timestamp, line.event_type, line.item_id) for line in state.history]
    return State(dict(state.counts), lines)
