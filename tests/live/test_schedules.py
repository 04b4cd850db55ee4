"""RETRAIN_SCHEDULE: when a retrain is due, and the request that the leader sends then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
from redis import Redis

from core.errors import ConfigurationError
from core.settings import Settings
from models.registry import Registry
from store.log import client, retrain_requests
from store.state import keys
from streams.live import schedules
from streams.live.schedules import AUTO_BIWEEKLY, AUTO_WEEKLY, cron, due

SUNDAYS = [datetime(2026, 1, 4, 3, tzinfo=UTC) + timedelta(weeks=week) for week in range(105)]
"""Two years of slots. 2026 has 53 ISO weeks, so an interval by week numbers would change at its
end.
"""


def test_the_presets_share_one_slot_and_every_crontab_is_accepted() -> None:
    assert {cron(preset) for preset in schedules.PRESETS} == {"0 3 * * 0"}
    assert all(slot.isoweekday() == 7 for slot in SUNDAYS)
    assert cron("*/15 1-5 * * mon") == "*/15 1-5 * * mon"
    assert cron("off") is None


@pytest.mark.parametrize(
    "wrong",
    ["", "daily", "@weekly", "* * * *", "0 0 0 0 0 0", "61 * * * *", "0 0 31 2 *", "a b c d e"],
)
def test_an_invalid_schedule_is_rejected_when_the_worker_starts(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="RETRAIN_SCHEDULE"):
        cron(wrong)


def test_weekly_is_every_sunday_and_biweekly_every_second_across_a_years_end() -> None:
    assert all(due("weekly", slot, 0) for slot in SUNDAYS)
    biweekly = [slot for slot in SUNDAYS if due("biweekly", slot, 0)]
    assert {later - earlier for earlier, later in pairwise(biweekly)} == {timedelta(weeks=2)}


def test_monthly_is_the_first_sunday_of_each_month() -> None:
    monthly = [slot for slot in SUNDAYS if due("monthly", slot, 0)]
    assert [(slot.year, slot.month) for slot in monthly] == [
        (2026 + n // 12, n % 12 + 1) for n in range(len(monthly))
    ]
    assert all(slot.day <= 7 for slot in monthly)


def test_auto_depends_on_the_events_since_the_snapshot() -> None:
    for volume, preset in (
        (AUTO_WEEKLY, "weekly"),
        (AUTO_WEEKLY - 1, "biweekly"),
        (AUTO_BIWEEKLY, "biweekly"),
        (1, "monthly"),
    ):
        assert [due("auto", slot, volume) for slot in SUNDAYS] == [
            due(preset, slot, 0) for slot in SUNDAYS
        ]
    assert not any(due("auto", slot, 0) for slot in SUNDAYS), "without new events no retrain is due"


def test_a_timer_that_wakes_early_or_late_has_the_slot_of_the_nearest_minute() -> None:
    slot = datetime(2026, 1, 4, 3, tzinfo=UTC)
    for error in (-0.01, 0.0, 0.01, 20.0):
        assert schedules.nearest_slot(slot + timedelta(seconds=error)) == slot


def test_a_crontab_is_due_whenever_it_fires() -> None:
    assert due("17 4 * * *", datetime(2026, 3, 11, 4, 17, tzinfo=UTC), 0)


def test_new_events_are_those_after_the_snapshot_of_the_live_bundle(
    broker: object, settings: Settings, redis: Redis
) -> None:
    """In whatever shard the position of a partition is."""
    settings = settings.model_copy(update={"redis_shards": 2})
    client.ensure_topics(settings)
    topic = settings.interactions_topic
    for shard, partition, position in ((0, 0, 100), (1, 3, 50)):
        redis.hset(keys.Keys(shard, 2).position(topic, partition), "position", position)
    assert schedules.new_events(settings) == 150
    Registry(settings.models_path).publish(
        lambda _folder: None, {"positions": {topic: {"0": 90, "3": 50}}}
    )
    assert schedules.new_events(settings) == 10


def test_the_leader_requests_one_retrain_a_slot_and_none_without_new_events(
    broker: object, settings: Settings, redis: Redis
) -> None:
    registered: list[tuple[str, dict[str, Any], Callable[[], Awaitable[None]]]] = []

    class App:
        should_stop = False

        def crontab(self, expression: str, **options: Any) -> Callable[[Any], Any]:
            return lambda function: registered.append((expression, options, function))

    schedules.register(App(), settings.model_copy(update={"retrain_schedule": "off"}))
    assert registered == []
    for schedule in ("* * * * *", "auto"):
        schedules.register(App(), settings.model_copy(update={"retrain_schedule": schedule}))
    (expression, options, every_minute), (_, _, auto) = registered
    assert (expression, options) == ("* * * * *", {"timezone": UTC, "on_leader": True})
    before = schedules.nearest_slot(datetime.now(UTC))
    for _ in range(2):  # a timer that woke early fires again
        anyio.run(every_minute)
    slots = {before, schedules.nearest_slot(datetime.now(UTC))}
    anyio.run(auto)  # without new events no retrain is due
    with retrain_requests.Requests(settings) as requests:
        first = None
        while first is None:
            first = requests.next(0.2)
        request = retrain_requests.decode(first.value)
        assert request.requested_by == "schedule"
        assert request.reason.startswith("* * * * *; slot 20")
        assert 1 <= sum(requests.ends().values()) <= len(slots)
