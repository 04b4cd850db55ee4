"""Helpers for tests that run live workers as processes."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis

from core.settings import Settings
from models.als import ALSModel
from store.log import client as log
from testing.process import Child
from tests.conftest import Spawn
from tests.live.world import EventStream, is_fresh, publish, vector_problem
from tests.support import eventually


def live_and_ingest(settings: Settings, spawn: Spawn, **environment: str) -> list[Child]:
    """Start a live worker, with `environment`, and ingest, on new topics and a first bundle.

    The worker folds in every user with an event, unless `environment` sets LIVE_READ_S.
    """
    log.ensure_topics(settings)
    publish(settings, seed=1)
    shards = {"REDIS_SHARDS": str(settings.redis_shards)}
    worker = spawn("streams", "live", **{"LIVE_READ_S": "0", **shards, **environment})
    return [worker, spawn("streams", "ingest", **shards)]


def check_alive(*children: Child) -> None:
    """Fail with the log of a process that has ended."""
    for child in children:
        child.check()


def wait_until_fresh(
    redis: Redis, settings: Settings, model: ALSModel, *children: Child, timeout: float = 60.0
) -> None:
    """Wait until every user of an EventStream has a vector of `model` that counts all events."""

    def all_fresh() -> bool:
        check_alive(*children)
        return all(is_fresh(redis, settings, model, user_id) for user_id in EventStream.USERS)

    eventually(all_fresh, "a fresh vector of every user", timeout)


def check_vectors_until(
    redis: Redis,
    settings: Settings,
    models: dict[str, ALSModel],
    condition: Callable[[], object],
    what: str,
) -> None:
    """Check the vectors of all users of an EventStream again and again until `condition()`."""

    def checked() -> object:
        for user_id in EventStream.USERS:
            assert (problem := vector_problem(redis, settings, models, user_id)) is None, problem
        return condition()

    eventually(checked, what, 60.0)
