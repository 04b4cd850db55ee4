"""Fixtures of the exactly-once tests: settings, an ingest process, and the wait until it has
applied the whole log.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from store.log import client as log
from testing.process import Child
from tests import oracle
from tests.support import eventually

Ingest = Callable[..., Child]
"""The fixture `ingest`."""


@pytest.fixture
def seed() -> int:
    """A random seed; it is printed, so that a failure can be repeated."""
    number = random.SystemRandom().randrange(2**32)
    print(f"seed {number}")
    return number


EXPERIMENTS = """
[experiments.blend]
users = [0.0, 0.6]
variants = { control = {}, half = { weight = 2, ensemble_als_weight = 0.5 } }

[experiments.colder]
users = [0.6, 0.9]
outcomes = ["like", "rating"]
variants = { control = {}, colder = { cold_start_threshold = 8 } }
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Small transactions, caps and windows, so that their edges are crossed often; experiments run,
    and the topics exist.
    """
    path = tmp_path / "experiments.toml"
    path.write_text(EXPERIMENTS)
    small = settings.model_copy(
        update={
            "transaction_events": 40,
            "history_cap": 50,
            "dedup_window": 2000,
            "session_timeout_s": 6.0,
            "experiments_path": path,
        }
    )
    log.ensure_topics(small)
    return small


@pytest.fixture
def ingest(spawn: Callable[..., Child], settings: Settings) -> Callable[..., Child]:
    """`ingest("die=5.4-sent,3")` starts an ingest process, by default in a group of its own: it
    never waits for the end of an earlier session.

    Positions are in Redis, so a group decides only when a process may start. Two groups that read
    the same partition are the harder case.
    """

    def start(*arguments: str, group: str | None = None, **environment: str) -> Child:
        return spawn(
            "tests.exactly_once.ingest_that_fails",
            *arguments,
            INGEST_GROUP=group or f"ingest-{uuid.uuid4().hex[:8]}",
            **environment,
        )

    return start


def ends(settings: Settings, topic: str | None = None) -> dict[int, int]:
    """By partition: the end of a topic's log (None: interactions), after reading up to it."""
    topic = topic or settings.interactions_topic
    return {
        partition: end
        for (_, partition), end in oracle.RecordedLog(settings).read([topic]).ends.items()
    }


def caught_up(
    redis: Redis,
    settings: Settings,
    child: Child,
    timeout: float = 60.0,
    topics: list[str] | None = None,
) -> None:
    """Wait until Redis, popularities included, is at the end of the log of `topics` (None: all)."""
    topics = topics or [settings.interactions_topic, settings.items_topic, settings.users_topic]
    end = {topic: ends(settings, topic) for topic in topics}
    positions: dict[str, dict[int, int]] = {}

    def is_at_end() -> bool:
        child.check()
        positions.update({topic: oracle.positions(redis, settings, topic) for topic in end})
        return (
            positions == end
            and oracle.popularity_positions(redis, settings) == end[settings.interactions_topic]
        )

    try:
        eventually(is_at_end, "ingest at the log's end", timeout)
    except AssertionError:
        raise AssertionError(
            f"the log ends at {end}, ingest stands at {positions} after {timeout:g} s; "
            f"{child.describe('is slow')}"
        ) from None
