"""Decides whether a time in a message is plausible, and which of two clocks to name if not.

Nothing here reads a clock: the time of the record in Kafka is the only reference, so a replay of
the log gives the same answer.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Literal

from core.errors import BadEvent

TimeUnit = Literal["s", "ms", "us", "ns"]
PER_SECOND: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

MAX_FUTURE_S = 24 * 3600
"""Maximum seconds from the record time of an event to its own timestamp.

Wrong clocks and time zones differ by hours, not by more.
"""
EARLIEST_S = 1e8
"""Earliest plausible record time, in 1973: milliseconds and seconds of today are not confused."""
LATEST_S = 4_102_444_800.0
"""Latest plausible record time: the year 2100."""
_FIRST_DAY, _LAST_DAY = 19_000_101, 21_001_231
"""Days as integers (YYYYMMDD); as seconds they lie in 1970."""


def is_plausible(record_time: float) -> bool:
    """Whether a record in Kafka may have this time, in seconds since 1970."""
    return EARLIEST_S <= record_time <= LATEST_S


def check_record_time(record_time: float) -> None:
    """`record_time`: of the record in Kafka, in seconds since 1970.

    Raises BadEvent (`bad_record_time`) unless it is plausible.
    """
    if EARLIEST_S <= record_time <= LATEST_S:
        return
    if record_time < 0:
        what = "is missing (-1)"
    else:
        unit = next(
            (
                f", which looks like {_NAMES[unit]}"
                for unit in ("s", "us", "ns")
                if EARLIEST_S <= record_time * 1000 / PER_SECOND[unit] <= LATEST_S
            ),
            "",
        )
        what = f"is {record_time * 1000:.0f} milliseconds since 1970{unit}"
    raise BadEvent(
        "bad_record_time",
        f"the time of the Kafka record {what}; the message itself may be valid. The producer sets "
        f"this time where the topic has message.timestamp.type=CreateTime: set LogAppendTime",
    )


def check_time(name: str, seconds: float, record_time: float) -> None:
    """Check the field `name`, in seconds since 1970, against the time of its record in Kafka.

    Raises BadEvent (`bad_timestamp`, or `bad_record_time` if the record is at fault).
    """
    check_record_time(record_time)
    if 0 <= seconds <= record_time + MAX_FUTURE_S:
        return
    unit = unit_of(seconds, record_time)
    if unit is not None:
        hint = f"; it looks like {_NAMES[unit]}"
    elif 0 < seconds <= LATEST_S:
        moment = datetime.fromtimestamp(record_time, UTC).isoformat(timespec="seconds")
        hint = (
            f"; now is the time of the Kafka record, {moment}: if that is wrong, the producer set "
            f"it (message.timestamp.type=CreateTime)"
        )
    else:
        hint = ""
    raise BadEvent(
        "bad_timestamp",
        f"{name} {seconds!r} is not within [0, now + 1 day] in seconds since 1970{hint}",
    )


def check_no_day(name: str, seconds: float) -> None:
    """Raises BadEvent (`bad_timestamp`) for a day as an integer, such as 20240115.

    Times of events may be that small: data sets count them from their own first day.
    """
    # not `in range(...)`: that walks through two million numbers for a float
    if _FIRST_DAY <= seconds <= _LAST_DAY and seconds == int(seconds):
        with suppress(ValueError):
            day = date.fromisoformat(str(int(seconds)))
            raise BadEvent(
                "bad_timestamp",
                f"{name} {seconds:.0f} is the day {day} as an integer, not seconds since 1970",
            )


def unit_of(number: float, record_time: float) -> TimeUnit | None:
    """The unit in which `number` is a plausible time, if it is none in seconds; else None."""
    if number <= record_time + MAX_FUTURE_S:
        return None
    units: tuple[TimeUnit, ...] = ("ms", "us", "ns")
    return next(
        (
            unit
            for unit in units
            if EARLIEST_S <= number / PER_SECOND[unit] <= record_time + MAX_FUTURE_S
        ),
        None,
    )


def parse_iso(text: str) -> float | None:
    """Seconds since 1970 of a day and a time as ISO 8601, UTC without an offset; else None."""
    if len(text) < len("2024-01-15T10:00"):  # a whole day is no time of an event
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
