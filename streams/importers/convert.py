"""Converts one row of a source to the message that a backend would have sent. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any

import msgspec

from core import codec
from core.errors import BadEvent, ConfigurationError
from core.types import Interaction, Item, User, Value
from core.use_cases import UseCases
from streams import times
from streams.importers.formats import ATTRIBUTE, Format
from streams.importers.sources import Source

_FLAGS = dict.fromkeys(("true", "t", "yes", "1"), True) | dict.fromkeys(
    ("false", "f", "no", "0"), False
)
_NO_CONTEXT = Interaction("", "", "", "", 0.0).context
"""The default object itself: the encoder leaves out only this one."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message for Kafka.

    `timestamp`: of the event, in seconds since 1970; 0 for items and users.
    """

    key: bytes
    value: bytes
    timestamp: float


class Skip(Exception):
    """The row is valid but left out; `reason` is the name under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def interactions(
    format_: Format,
    source: Source,
    use_cases: UseCases,
    now: float,
    *,
    min_value: float | None,
    default_timestamp: float | None,
) -> Callable[[int, Sequence[Any]], Message]:
    """A converter of rows to events, which checks them as ingest does.

    An event's id is made of the source's name and the row's number, or of the row's content where
    the order of rows may change. So a second import sends the same ids. The converter raises
    BadEvent, and Skip("below --min-value" | "no timestamp").
    """
    constants = dict(format_.constants)
    constant_time = (
        times.parse(constants["timestamp"]) if "timestamp" in constants else default_timestamp
    )
    user_of, item_of, event_type_of, use_case_of, event_id_of, recommendation_of, context_of = (
        _reader(format_, field)
        for field in (
            "user_id",
            "item_id",
            "event_type",
            "use_case",
            "event_id",
            "recommendation_id",
            "context",
        )
    )
    value_of, time_of = (_column(format_, field) for field in ("value", "timestamp"))
    per_second = format_.per_second

    def convert(number: int, row: Sequence[Any]) -> Message:
        value = _number("value", value_of(row))
        if min_value is not None and (value is None or not value >= min_value):
            raise Skip("below --min-value")
        timestamp = _time(time_of(row), per_second)
        if timestamp is None:
            timestamp = constant_time
        if timestamp is None:
            raise Skip("no timestamp")
        user_id, item_id = user_of(row) or "", item_of(row) or ""
        event_type, use_case = event_type_of(row) or "", use_case_of(row)
        event_id = event_id_of(row)
        if event_id is None:
            row_id = (
                number
                if source.has_stable_order
                else _digest(user_id, item_id, event_type, timestamp, value, use_case)
            )
            event_id = f"{source.name}:{row_id}"
        context = context_of(row)
        raw = msgspec.Raw(context.encode("utf-8", "replace")) if context else _NO_CONTEXT
        event = Interaction(
            event_id,
            user_id,
            item_id,
            event_type,
            timestamp,
            value,
            use_case,
            raw,
            recommendation_of(row),
        )
        codec.check_interaction(event, now, use_cases)
        encoded = codec.encode_json(event)
        if context:
            # only the encoded event shows whether the context is JSON
            codec.decode_interaction(encoded, now, use_cases)
        return Message(user_id.encode(), encoded, timestamp)

    return convert


def items(format_: Format) -> Callable[[int, Sequence[Any]], Message]:
    """A converter of rows to catalogue items, which raises BadEvent."""

    def convert(_number: int, row: Sequence[Any]) -> Message:
        fields = _fields(format_, row, ("categories", "tags"))
        if "created_at" in fields:
            fields["created_at"] = _time(fields["created_at"], format_.per_second)
        if "available" in fields:
            fields["available"] = _flag(fields["available"])
        encoded = codec.encode_json(fields)
        return Message(codec.decode_item(encoded).item_id.encode(), _canonical(encoded, Item), 0.0)

    return convert


def users(format_: Format) -> Callable[[int, Sequence[Any]], Message]:
    """A converter of rows to users, which raises BadEvent."""

    def convert(_number: int, row: Sequence[Any]) -> Message:
        encoded = codec.encode_json(_fields(format_, row, ("roles", "interests")))
        return Message(codec.decode_user(encoded).user_id.encode(), _canonical(encoded, User), 0.0)

    return convert


def _column(format_: Format, field: str) -> Callable[[Sequence[Any]], Any]:
    """Reads a field of a row: the mapped column's value, or the constant, or None."""
    if field in format_.columns:
        return itemgetter(list(format_.columns).index(field))
    constant = format_.constants.get(field)
    return lambda _row: constant


def _reader(format_: Format, field: str) -> Callable[[Sequence[Any]], str | None]:
    """`_column` as text."""
    if field not in format_.columns:
        return _column(format_, field)
    column = list(format_.columns).index(field)

    def read(row: Sequence[Any]) -> str | None:
        value = row[column]
        return str(value) if value.__class__ is int else _text(value)

    return read


def _fields(format_: Format, row: Sequence[Any], lists: tuple[str, ...]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    attributes: dict[str, Value] = {}
    for field, value in (*zip(format_.columns, row, strict=True), *format_.constants.items()):
        if value is None or value == "":
            continue
        if field.startswith(ATTRIBUTE):
            attributes[field.removeprefix(ATTRIBUTE)] = _attribute(value)
        elif field in lists:
            fields[field] = [
                part
                for part in (
                    value.split(format_.list_separator)
                    if isinstance(value, str)
                    else map(str, value)
                )
                if part
            ]
        else:
            fields[field] = value if field in ("available", "created_at") else _text(value)
    return fields | ({"attributes": attributes} if attributes else {})


def _canonical(encoded: bytes, kind: type[Item | User]) -> bytes:
    return codec.encode_json(msgspec.json.decode(encoded, type=kind))


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    # 42.0 was an id: data frames make floats of integer columns with missing values
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _number(field: str, value: Any) -> float | None:
    if value.__class__ is float:
        # data frames write NaN for a missing number
        return None if math.isnan(value) else value
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadEvent("bad_value", f"{field} {value!r} is no number") from None
    return number


def _time(value: Any, per_second: float) -> float | None:
    """Seconds since 1970. Raises BadEvent."""
    if value.__class__ is int:
        return value / per_second
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    if isinstance(value, int | float | Decimal):
        number = float(value)
        return None if math.isnan(number) else number / per_second
    try:
        return float(value) / per_second
    except (TypeError, ValueError):
        try:
            return times.parse(str(value))
        except ConfigurationError:
            raise BadEvent(
                "bad_timestamp", f"timestamp {value!r} is neither a number nor ISO 8601"
            ) from None


def _flag(value: Any) -> bool:
    if isinstance(value, bool | int):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise BadEvent("bad_field", f"available {value!r} is neither true nor false")


def _attribute(value: Any) -> Value:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [str(part) for part in value]
    return str(value)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
