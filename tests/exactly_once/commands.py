"""Runs the commands of an operator as processes, for tests."""

from __future__ import annotations

from redis import Redis

from core.settings import Settings
from testing.process import Child
from tests.conftest import Spawn
from tests.exactly_once.conftest import Ingest, caught_up


def run(spawn: Spawn, *arguments: str, **environment: str) -> str:
    """Run a command of `streams` to its end; answers its output."""
    child = spawn("streams", *arguments, **environment)
    assert child.wait(90) == 0, child.describe("failed")
    return child.log.read_text()


def archive(spawn: Spawn, **environment: str) -> None:
    """Archive up to the log's end."""
    run(spawn, "archive", "--until-idle", **environment)


def rebuild(spawn: Spawn, *arguments: str, **environment: str) -> str:
    """Rebuild Redis; answers the output."""
    return run(spawn, "rebuild", *arguments, **environment)


def ingest_all(redis: Redis, settings: Settings, ingest: Ingest, **environment: str) -> None:
    """Ingest up to the log's end, and stop."""
    child = ingest(**environment)
    caught_up(redis, settings, child)
    child.stop()


def assert_stops(child: Child, text: str) -> None:
    """The process ends with an error that contains `text`."""
    assert child.wait(60) == 1, child.describe("goes on")
    assert text in child.log.read_text()
