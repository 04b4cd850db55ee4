"""Converts cells to seconds since 1970."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from core.contract.times import MAX_FUTURE_S
from core.errors import BadEvent
from store.tables.values import NOT_AVAILABLE, Converter

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Unit -> units in a second."""
_SLASHED = re.compile(
    r"\d{1,2}/\d{1,2}/(?:\d{4}|(?P<short>\d\d))"
    r"(?P<time>,? \d{1,2}:\d\d(?P<seconds>:\d\d)?(?P<half> ?[AaPp][Mm])?)?"
)
"""A day as in the US or in England, with or without a time."""
_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")
_INTEGER_DAYS = (19_000_101, 21_001_231)


class Times(Converter):
    """Converts the cells of one column of times.

    `per_second`: units of a number in a second, None where nobody said it. `formats`: how text is
    written (strptime), in this order; without one: numbers and ISO 8601. A day without a time of
    day is refused unless a format declares it. Times without a zone are UTC.
    """

    missing = NOT_AVAILABLE

    def __init__(
        self, field: str, per_second: float | None, formats: Sequence[str], now: float
    ) -> None:
        super().__init__(field, self._convert)
        self._per_second, self._formats = per_second or 1.0, formats
        self._is_declared = per_second is not None
        self._latest = now + MAX_FUTURE_S
        # a smaller number may be a day such as 20240115, which only the slow way can tell
        self._lowest = 0.0 if self._is_declared else float(_INTEGER_DAYS[1] + 1)

    def column(self, cells: Sequence[Any]) -> list[Any]:
        """As the base; a column of numbers within the range is converted at once."""
        if not self._formats:
            try:
                times = list(map(float, cells))
            except (TypeError, ValueError, OverflowError):
                return super().column(cells)
            if self._per_second != 1.0:
                times = [time / self._per_second for time in times]
            is_within = times and min(times) >= self._lowest and max(times) <= self._latest
            # the sum is not a number where one of them is not
            if is_within and sum(times) >= 0:
                return times
        return super().column(cells)

    def seconds(self, cells: Sequence[Any]) -> list[Any]:
        """The same for cells that are seconds since 1970 by their column's type."""
        if cells and None not in cells and min(cells) >= 0 and max(cells) <= self._latest:
            return list(cells)
        unit, declared = self._per_second, self._is_declared
        self._per_second, self._is_declared = 1.0, True
        try:
            return [self.value(cell) for cell in cells]
        finally:
            self._per_second, self._is_declared = unit, declared

    def _convert(self, value: Any) -> float:
        seconds = self._seconds(value)
        if not 0 <= seconds <= self._latest:
            looks = self._guess(seconds)
            raise BadEvent(
                "bad_timestamp",
                f"{self.field} {value!r} is not within [0, now + 1 day]{looks}",
            )
        return seconds

    def _seconds(self, value: Any) -> float:
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, date):
            if not any("%H" in form or "%I" in form for form in self._formats) and self._formats:
                return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
            raise self._whole_day(str(value))
        if isinstance(value, bool):
            raise BadEvent("bad_timestamp", f"{self.field} {value!r} is no time")
        if isinstance(value, int | float | Decimal):
            return self._number(float(value), value)
        text = str(value)
        for form in self._formats:
            try:
                moment = datetime.strptime(text.removesuffix(" UTC"), form)  # noqa: DTZ007
            except ValueError:
                continue
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        try:
            return self._number(float(text), text)
        except ValueError:
            return self._text(text)

    def _number(self, number: float, value: Any) -> float:
        low, high = _INTEGER_DAYS
        if not self._is_declared and low <= number <= high and number == int(number):
            day = int(number)
            if 1 <= day // 100 % 100 <= 12 and 1 <= day % 100 <= 31:
                raise self._whole_day(str(value), "%Y%m%d")
        return number / self._per_second

    def _text(self, text: str) -> float:
        clean = text.removesuffix(" UTC").removesuffix(" GMT")
        if _DAY.fullmatch(clean):
            raise self._whole_day(text)
        try:
            moment = datetime.fromisoformat(clean)
        except ValueError:
            hint = "give --time-format, such as %d.%m.%Y %H:%M"
            if slashed := _SLASHED.fullmatch(clean):
                form = _form_of(slashed)
                hint = f"give --time-format '%m/%d/{form}' or, for days first, '%d/%m/{form}'"
            expected = f"of the form {self._formats[0]}" if self._formats else "ISO 8601"
            raise BadEvent(
                "bad_timestamp", f"{self.field} {text!r} is neither a number nor {expected}: {hint}"
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    def _whole_day(self, text: str, form: str = "%Y-%m-%d") -> BadEvent:
        return BadEvent(
            "whole_day",
            f"{self.field} {text!r} is a day without a time of day, which gives no order within "
            f"the day; give --time-format {form} to count it as midnight UTC",
        )

    def _guess(self, seconds: float) -> str:
        for unit, per_second in list(UNITS.items())[1:]:
            if 1e9 <= seconds / per_second < 4.2e9:
                return f": it looks like --time-unit {unit}"
        return " in seconds since 1970"


def _form_of(match: re.Match[str]) -> str:
    """The form of the year and the time of such a text, for strptime."""
    year = "%y" if match["short"] else "%Y"
    if not match["time"]:
        return year
    comma = "," if match["time"].startswith(",") else ""
    half = match["half"]
    seconds = ":%S" if match["seconds"] else ""
    end = (" %p" if half.startswith(" ") else "%p") if half else ""
    return f"{year}{comma} {'%I' if half else '%H'}:%M{seconds}{end}"
