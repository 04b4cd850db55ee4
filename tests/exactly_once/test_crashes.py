"""Every accepted event counts exactly once, whenever an ingest process is killed or frozen."""

from __future__ import annotations

import signal

import pytest
from redis import Redis

from core.settings import Settings
from store.log.producer import Producer
from testing.process import Child
from tests import oracle
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.ingest_that_fails import STEPS
from tests.exactly_once.traffic import Traffic
from tests.support import eventually

pytestmark = pytest.mark.process


@pytest.mark.timeout(600)
def test_a_kill_at_any_step_loses_no_event_and_counts_none_twice(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    with Traffic(settings, seed):
        for number, step in enumerate(STEPS):
            child = ingest(f"die={step},{1 + (seed + number) % 4}")
            assert child.wait(60) == -signal.SIGKILL, child.describe("should have died by SIGKILL")
    child = ingest()
    caught_up(redis, settings, child)
    checked = oracle.assert_equal(redis, settings)
    assert checked.counted > 1000
    assert checked.duplicates > 10
    assert len(checked.experiments) == 8  # sums by type, and by user, of four variants
    assert oracle.dead_letter_differences(settings, checked) == []
    assert checked.dead


@pytest.mark.timeout(360)
def test_consumers_that_start_and_stop_in_one_group_count_every_event_once(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    with Traffic(settings, seed):
        first = ingest(group=settings.ingest_group)
        eventually(
            lambda: sum(oracle.positions(redis, settings).values()) > 500,
            "the first consumer applies events",
        )
        second = ingest(group=settings.ingest_group)
        eventually(
            lambda: "partition_assigned" in second.log.read_text(),
            "partitions assigned to the second consumer",
        )
        eventually(
            lambda: "partition_revoked" in first.log.read_text(),
            "partitions revoked from the first consumer",
        )
        before = sum(oracle.positions(redis, settings).values())
        eventually(
            lambda: sum(oracle.positions(redis, settings).values()) > before + 500,
            "both apply events",
        )
        first.stop()
        assert first.exit_code == 0, first.describe("stopped with an error")
        third = ingest(group=settings.ingest_group)
        eventually(
            lambda: "partition_assigned" in third.log.read_text(),
            "partitions assigned to the third consumer",
        )
        second.kill()
    caught_up(redis, settings, third)
    oracle.assert_equal(redis, settings)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", ["3-planned", "5.2-compared", "5.4-half-sent", "5.5-replied"])
def test_a_consumer_that_was_frozen_counts_nothing_twice(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int, step: str
) -> None:
    _freeze_and_thaw(settings, redis, ingest, seed, step, None)


@pytest.mark.apache
@pytest.mark.timeout(360)
def test_a_consumer_frozen_past_its_session_counts_nothing_twice(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    """Both are in one group: when the session of the frozen one ends, the broker assigns its
    partitions to the other.
    """
    _freeze_and_thaw(settings, redis, ingest, seed, "5.2-compared", settings.ingest_group)


def _freeze_and_thaw(
    settings: Settings, redis: Redis, ingest: Ingest, seed: int, step: str, group: str | None
) -> None:
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, 2000)
    frozen = ingest(f"freeze={step},3", group=group)
    eventually(lambda: _state(frozen) == "stopped", "the first consumer frozen")
    other = ingest(group=group)
    caught_up(redis, settings, other)
    frozen.signal(signal.SIGCONT)
    frozen.stop()  # applies its queued batches first
    with Producer(settings) as producer:
        Traffic(settings, seed + 1).burst(producer, 500)
    caught_up(redis, settings, other)
    oracle.assert_equal(redis, settings)


@pytest.mark.timeout(240)
def test_every_event_delivered_twice_counts_once(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    with Traffic(settings, seed, twice=True):
        child = ingest("die=5.6-applied,20")
        child.wait(60)
        child = ingest()
        eventually(
            lambda: sum(oracle.positions(redis, settings).values()) > 3000,
            "some thousand events applied",
        )
    caught_up(redis, settings, child)
    checked = oracle.assert_equal(redis, settings)
    assert checked.duplicates >= checked.counted


def _state(child: Child) -> str:
    import psutil

    child.check()
    return psutil.Process(child.pid).status()
