"""Runs a few random schedules; `python -m tests.exactly_once.random_schedules` runs many."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.apache import KafkaBroker
from testing.tansu import TansuBroker
from tests.exactly_once.random_schedules.faults import FAULTS
from tests.exactly_once.random_schedules.schedule import plan, run_schedule
from tests.exactly_once.random_schedules.world_settings import LAYOUTS, Layout


@pytest.mark.process
@pytest.mark.timeout(360)
@pytest.mark.parametrize("layout", ["server", "shards"])
def test_redis_dead_letters_and_archive_equal_the_logs_after_random_faults(
    broker: KafkaBroker | TansuBroker, tmp_path: Path, seed: int, layout: str
) -> None:
    """With one shard, and with four."""
    result = run_schedule(broker, tmp_path, seed, LAYOUTS[layout])
    print(result)
    assert result.problems == [], (
        f"python -m tests.exactly_once.random_schedules --redis {layout} --replay {seed}"
    )


@pytest.mark.timeout(360)
def test_events_count_once_and_no_read_fails_while_a_cluster_moves_slots_and_loses_primaries(
    broker: KafkaBroker | TansuBroker, tmp_path: Path, seed: int
) -> None:
    """A replica takes over that lacks the last writes, and slots move before and after."""
    layout = Layout(shards=4, is_cluster=True, events_per_s=500)
    result = run_schedule(broker, tmp_path, seed, layout, ["move-slots", "kill-late"])
    print(result)
    assert result.problems == []
    assert result.reads > 100


@pytest.mark.parametrize("is_cluster", [False, True])
def test_a_seed_gives_the_same_faults_and_many_seeds_give_all_of_them(is_cluster: bool) -> None:
    other = "server" if is_cluster else "cluster"
    plans = [plan(seed, is_apache=True, is_cluster=is_cluster) for seed in range(150)]
    assert plans == [plan(seed, is_apache=True, is_cluster=is_cluster) for seed in range(150)]
    assert {name for names in plans for name in names} == {
        name for name, fault in FAULTS.items() if fault.of != other
    }
    assert not any(
        FAULTS[name].needs_apache
        for seed in range(100)
        for name in plan(seed, is_apache=False, is_cluster=is_cluster)
    )
