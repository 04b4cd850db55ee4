"""When a retrain is asked for without anybody asking: a crontab that the leader of the live workers
runs.

RETRAIN_SCHEDULE is a preset, `off`, or five fields of cron, all in UTC. The presets share one slot,
Sunday 03:00:

    weekly      every Sunday
    biweekly    every second Sunday: those of even weeks, counted from the year 1 on, so that a year's end does not break the rhythm
    monthly     the first Sunday of a month
    auto        by the events since the live bundle's snapshot: from AUTO_WEEKLY as weekly, from AUTO_BIWEEKLY as biweekly,
                else as monthly; not at all when there are none

A preset needs no memory of what it did before: whether a Sunday counts follows from its date.
Nothing runs here but the request (topic RETRAIN_REQUESTS_TOPIC); `python -m training worker` does
the work.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from core.errors import ConfigurationError, EddylineError
from core.settings import Settings
from models.registry import Registry
from store.log import partitions, retrain_requests
from store.state import connection
from store.state.apply import positions

SLOT = "0 3 * * 0"
PRESETS = ("weekly", "biweekly", "monthly", "auto")
OFF = "off"
AUTO_WEEKLY = 1_000_000
"""Events since the snapshot that make a retrain due at the next slot: what ML-1M has in all, some
minutes of training.
"""
AUTO_BIWEEKLY = 100_000
RETRY_S = 10.0
"""Seconds until a request that could not be sent is tried again."""

_log = structlog.get_logger(__name__)


def cron(schedule: str) -> str | None:
    """The crontab of RETRAIN_SCHEDULE, None for `off`. Raises ConfigurationError."""
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
    """Whether the crontab of `schedule` means it at `slot` (UTC).

    `new_events`: since the live bundle's snapshot; only `auto` asks.
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
    """The full minute nearest to `now`: a timer that wakes a moment early fires again at the slot
    itself, and both mean the same.
    """
    return (now + timedelta(seconds=30)).replace(second=0, microsecond=0)


def new_events(settings: Settings) -> int:
    """Events applied to Redis since the live bundle's snapshot; all of them while no bundle is
    live.

    Raises StoreError, ModelError, LogUnavailable.
    """
    registry, topic = Registry(settings.models_path), settings.interactions_topic
    live = registry.current()
    seen = registry.manifest(live).positions.get(topic, {}) if live is not None else {}
    count = partitions.count(settings, topic)
    with connection.connect(settings) as client:
        return sum(
            max(0, positions.read(client, topic, number).offset - seen.get(str(number), 0))
            for number in range(count)
        )


def ask(settings: Settings, slot: datetime) -> str | None:
    """Request a retrain if RETRAIN_SCHEDULE means `slot`; answers the request's token.

    Raises StoreError, ModelError, LogUnavailable.
    """
    schedule = settings.retrain_schedule
    count = new_events(settings) if schedule == "auto" else 0
    if not due(schedule, slot, count):
        _log.info(
            "no retrain at this slot", schedule=schedule, slot=slot.isoformat(), new_events=count
        )
        return None
    reason = f"{schedule}, {count} new events" if schedule == "auto" else schedule
    token = retrain_requests.send(settings, "schedule", f"{reason}; slot {slot:%Y-%m-%dT%H:%MZ}")
    _log.info("retrain requested", schedule=schedule, slot=slot.isoformat(), token=token)
    return token


def register(app: Any, settings: Settings) -> None:
    """Put RETRAIN_SCHEDULE on a Faust app; its leader asks. Raises ConfigurationError."""
    expression = cron(settings.retrain_schedule)
    if expression is None:
        return
    asked: list[datetime] = []

    @app.crontab(expression, timezone=UTC, on_leader=True)  # type: ignore[untyped-decorator]
    async def request_retrain() -> None:
        slot = nearest_slot(datetime.now(UTC))
        while slot not in asked and not app.should_stop:
            try:
                await asyncio.to_thread(ask, settings, slot)
                asked[:] = [slot]
            except EddylineError as error:  # raised any further, it would end the whole worker
                _log.warning(
                    "the retrain could not be requested yet",
                    slot=slot.isoformat(),
                    error=str(error),
                )
                await app.sleep(RETRY_S)
