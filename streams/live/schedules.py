"""Requests retrains by RETRAIN_SCHEDULE, a crontab that the leader of the live workers runs.

RETRAIN_SCHEDULE is a preset, `off`, or five fields of cron, all in UTC. The presets share one slot,
Sunday 03:00:

    weekly      every Sunday
    biweekly    every second Sunday: those of even weeks, counted from the year 1,
                so that the interval is the same at the end of a year
    monthly     the first Sunday of a month
    auto        by the number of events since the live bundle's snapshot:
                from AUTO_WEEKLY as weekly, from AUTO_BIWEEKLY as biweekly,
                else as monthly; never when there are none

A preset needs no stored state: the date alone decides whether a Sunday counts. This module only
sends the request (topic RETRAIN_REQUESTS_TOPIC); `python -m training worker` runs the retrain.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from core.errors import ConfigurationError, EddylineError
from core.settings import Settings
from models.registry import Registry
from store.log import retrain_requests
from store.log.topics import partitions
from store.state.apply import positions
from store.state.shards import Shards

SLOT = "0 3 * * 0"
PRESETS = ("weekly", "biweekly", "monthly", "auto")
OFF = "off"
AUTO_WEEKLY = 1_000_000
"""Events since the snapshot from which a retrain is due at the next slot: as many as ML-1M has,
some minutes of training.
"""
AUTO_BIWEEKLY = 100_000
RETRY_S = 10.0
"""Seconds until a request that could not be sent is sent again."""

_log = structlog.get_logger(__name__)


def cron(schedule: str) -> str | None:
    """The crontab of `schedule`, None for `off`. Raises ConfigurationError."""
    from faust.utils.cron import secs_for_next

    if schedule == OFF:
        return None
    expression = SLOT if schedule in PRESETS else schedule
    try:
        if len(expression.split()) != 5:
            raise ValueError(f"cron has five fields, this has {len(expression.split())}")
        secs_for_next(expression, UTC)
    except (ValueError, KeyError) as error:  # croniter's errors are ValueErrors
        raise ConfigurationError(
            f"RETRAIN_SCHEDULE={schedule!r} is neither {', '.join(PRESETS)} or {OFF} nor "
            f"five fields of cron such as '0 3 * * 0': {error}"
        ) from None
    return expression


def due(schedule: str, slot: datetime, new_events: int) -> bool:
    """Whether a retrain is due by `schedule` at `slot` (UTC).

    `new_events`: since the live bundle's snapshot; only `auto` uses it.
    """
    if schedule == "auto":
        if not new_events:
            return False
        schedule = (
            "weekly"
            if new_events >= AUTO_WEEKLY
            else "biweekly"
            if new_events >= AUTO_BIWEEKLY
            else "monthly"
        )
    if schedule == "biweekly":
        return slot.toordinal() // 7 % 2 == 0  # ordinal 7 is a Sunday
    if schedule == "monthly":
        return slot.day <= 7
    return True


def nearest_slot(now: datetime) -> datetime:
    """The full minute nearest to `now`.

    A timer that wakes a moment early fires again at the slot itself; both have the same slot.
    """
    return (now + timedelta(seconds=30)).replace(second=0, microsecond=0)


def new_events(settings: Settings) -> int:
    """Events applied to Redis since the live bundle's snapshot; all, if no bundle is live.

    Raises StoreError, ModelError, LogUnavailable.
    """
    registry, topic = Registry(settings.models_path), settings.interactions_topic
    live = registry.current()
    snapshot = registry.manifest(live).positions.get(topic, {}) if live is not None else {}
    count = partitions.count(settings, topic)
    with Shards(settings) as shards:
        applied = [
            positions.read(shards.of_partition(topic, number), topic, number).offset
            for number in range(count)
        ]
    return sum(
        max(0, offset - snapshot.get(str(number), 0)) for number, offset in enumerate(applied)
    )


def request_if_due(settings: Settings, slot: datetime) -> str | None:
    """Request a retrain if RETRAIN_SCHEDULE has one at `slot`; returns the request's token.

    Raises StoreError, ModelError, LogUnavailable.
    """
    schedule = settings.retrain_schedule
    count = new_events(settings) if schedule == "auto" else 0
    if not due(schedule, slot, count):
        _log.info("retrain_not_due", schedule=schedule, slot=slot.isoformat(), new_events=count)
        return None
    reason = f"{schedule}, {count} new events" if schedule == "auto" else schedule
    token = retrain_requests.send(settings, "schedule", f"{reason}; slot {slot:%Y-%m-%dT%H:%MZ}")
    _log.info("retrain_requested", schedule=schedule, slot=slot.isoformat(), token=token)
    return token


def register(app: Any, settings: Settings) -> None:
    """Add RETRAIN_SCHEDULE to a Faust app, whose leader runs it. Raises ConfigurationError."""
    expression = cron(settings.retrain_schedule)
    if expression is None:
        return
    handled: list[datetime] = []
    """The last slot that was handled."""

    @app.crontab(expression, timezone=UTC, on_leader=True)  # type: ignore[untyped-decorator]
    async def request_retrain() -> None:
        slot = nearest_slot(datetime.now(UTC))
        while slot not in handled and not app.should_stop:
            try:
                await asyncio.to_thread(request_if_due, settings, slot)
                handled[:] = [slot]
            except EddylineError as error:  # an error here would end the worker
                _log.warning("retrain_request_failed", slot=slot.isoformat(), error=str(error))
                await app.sleep(RETRY_S)
