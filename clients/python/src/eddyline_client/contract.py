"""Checks events, items and users by the event contract before they are sent.

The error codes are those of the server.

A message in Kafka that breaks the contract becomes a dead letter, which its sender does not see: so
the sender checks it. The server checks what depends on its configuration (event types, use cases).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec

from eddyline_client.errors import InvalidInput
from eddyline_client.types import Event, Item, User

MAX_ID_BYTES = 256
"""Bytes of UTF-8 in an id."""
MAX_EVENT_BYTES = 64 * 1024
"""Bytes of JSON in one event."""
MAX_ENTRY_BYTES = 256 * 1024
"""Bytes of JSON in one item or user."""
MAX_VALUE = 1e6
MAX_FUTURE_S = 24 * 3600
"""Seconds that an event's timestamp may be ahead of the clock."""
_DAYS = range(19_000_101, 21_010_101)
"""Days as integers (YYYYMMDD); as seconds they lie in 1970."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_encoder = msgspec.json.Encoder()
_decoders = {kind: msgspec.json.Decoder(kind) for kind in (Event, Item, User)}


def encode_event(event: Event) -> bytes:
    """`event` as JSON. Raises InvalidInput, which names the invalid field."""
    data = _encode(event, MAX_EVENT_BYTES)
    check_id("event_id", event.event_id)
    check_id("user_id", event.user_id)
    check_id("item_id", event.item_id)
    if event.schema_version != 1:
        raise InvalidInput(
            "unknown_schema_version", f"schema_version is {event.schema_version}, not 1"
        )
    if not _NAME.fullmatch(event.event_type):
        raise InvalidInput(
            "unknown_event_type",
            f"event_type {event.event_type!r} is not a lower-case name like 'add_to_cart'",
        )
    if event.use_case is not None and not _NAME.fullmatch(event.use_case):
        raise InvalidInput(
            "unknown_use_case", f"use_case {event.use_case!r} is not a lower-case name"
        )
    _check_time("timestamp", event.timestamp)
    if event.value is not None and not 0 <= event.value <= MAX_VALUE:
        raise InvalidInput("bad_value", f"value {event.value!r} is not within [0, {MAX_VALUE:g}]")
    return data


def encode_item(item: Item) -> bytes:
    """`item` as JSON. Raises InvalidInput."""
    data = _encode(item, MAX_ENTRY_BYTES)
    check_id("item_id", item.item_id)
    check_id("item_type", item.item_type)
    if item.created_at is not None:
        _check_time("created_at", item.created_at)
        _check_no_day("created_at", item.created_at)
    return data


def encode_user(user: User) -> bytes:
    """`user` as JSON. Raises InvalidInput."""
    data = _encode(user, MAX_ENTRY_BYTES)
    check_id("user_id", user.user_id)
    return data


def encode_change(changes: Mapping[str, Any]) -> bytes:
    """Fields to change, as JSON; the server checks them. Raises InvalidInput."""
    try:
        return _encoder.encode(dict(changes))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("bad_field", f"the changes are no valid JSON: {error}") from None


def check_id(name: str, value: str) -> None:
    """Raises InvalidInput unless `value` is an id.

    An id has 1 to 256 bytes of UTF-8, is not blank, and every character is printable.
    """
    if not isinstance(value, str):
        raise InvalidInput("bad_field", f"{name} must be text, not {type(value).__name__}")
    if not value or value.isspace():
        raise InvalidInput("bad_id", f"{name} is empty")
    if not value.isprintable():
        raise InvalidInput("bad_id", f"{name} contains a control character or a lone surrogate")
    if len(value.encode()) > MAX_ID_BYTES:
        raise InvalidInput("bad_id", f"{name} has more than {MAX_ID_BYTES} bytes")


def _check_time(name: str, seconds: float) -> None:
    """Raises InvalidInput unless `seconds` since 1970 is at most a day ahead of the clock."""
    if not 0 <= seconds <= time.time() + MAX_FUTURE_S:
        hint = "; it looks like milliseconds" if 1e11 < seconds < 1e14 else ""
        raise InvalidInput(
            "bad_timestamp",
            f"{name} {seconds!r} is not within [0, now + 1 day] in seconds since 1970{hint}",
        )


def _check_no_day(name: str, seconds: float) -> None:
    """Raises InvalidInput for a day as an integer, such as 20240115."""
    if seconds in _DAYS:
        try:
            day = date.fromisoformat(str(int(seconds)))
        except ValueError:
            return
        raise InvalidInput(
            "bad_timestamp",
            f"{name} {seconds:.0f} is the day {day} as an integer, not seconds since 1970",
        )


def _encode(entry: Event | Item | User, max_bytes: int) -> bytes:
    """JSON of `entry`, with its types checked: structs do not check them when they are made."""
    kind = type(entry)
    if kind not in _decoders:
        raise InvalidInput("bad_field", f"expected an Event, Item or User, not {kind.__name__}")
    try:
        data = _encoder.encode(entry)
        _decoders[kind].decode(data)
    except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("bad_field", f"{kind.__name__} is no valid JSON: {error}") from None
    if len(data) > max_bytes:
        raise InvalidInput(
            "too_large", f"the {kind.__name__} has {len(data)} bytes of JSON, more than {max_bytes}"
        )
    return data
