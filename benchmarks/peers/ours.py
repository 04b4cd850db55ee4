"""Measures `streams ingest` from outside its process, at work on the events of the peers."""

from __future__ import annotations

import time
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
        pipe.hget(keys.position(settings.interactions_topic, number), "position")
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
    return Report(events - first, took, cpu, {user: _state(redis, user) for user in SAMPLES})


def _state(redis: Redis, user: str) -> State:
    state = users.read(redis, user, HISTORY)
    lines = [(line.timestamp, line.event_type, line.item_id) for line in state.history]
    return State(dict(state.counts), lines)
