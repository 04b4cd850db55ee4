"""Decodes events, items and users, and decides whether they are valid; no other module does.
`core.usual_events` decodes many events at once, where the answer is the same.

Whether an event is valid follows from its bytes, the time of its record in Kafka and the settings
(event types, use cases, tolerance) alone, so a replay of the log gives the same answer. A message
that is not valid as it stands is looked at again: `core.contract`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from core.contract import envelopes, problems
from core.contract.times import (
    EARLIEST_S,
    LATEST_S,
    MAX_FUTURE_S,
    check_no_day,
    check_time,
)
from core.contract.tolerance import INTERACTION, ITEM, STRICT, USER, Fields, Tolerance, mend
from core.errors import BadEvent
from core.types import Interaction, Item, User
from core.use_cases import UseCases

SCHEMA_VERSION = 1
MAX_ID_BYTES = 256
"""Maximum bytes of UTF-8 in an id: fits a UUID, URN or URL slug, and bounds the keys in Redis."""
MAX_EVENT_BYTES = 64 * 1024
"""Maximum bytes of one event, its context included."""
MAX_CATALOGUE_BYTES = 256 * 1024
"""Maximum bytes of one item or user."""
MAX_VALUE = 1e6

_TIMES = "a time is a number of seconds since 1970"
_TIME_TEXTS = (
    "a time is a number of seconds since 1970, or a day with a time of day as ISO 8601 text, such "
    "as 2027-01-15T08:00:00Z"
)
NO_CONTEXT = Interaction("", "", "", "", 0.0).context
"""The context of every interaction without one."""
_interactions = msgspec.json.Decoder(Interaction)
_items = msgspec.json.Decoder(Item)
_users = msgspec.json.Decoder(User)
_REFUSALS = (BadEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_Decoded = TypeVar("_Decoded")
_Entry = TypeVar("_Entry", bound=Item | User)
encode_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def decode_interaction(
    data: bytes | None, broker_time: float, use_cases: UseCases, tolerance: Tolerance = STRICT
) -> Interaction:
    """Decode one interaction; `broker_time`: the record's time in Kafka, in seconds since 1970.

    `tolerance`: what is accepted beyond the contract. Raises BadEvent, which names the field, what
    is wrong with it, and a setting that would accept it.
    """
    if not data:
        raise BadEvent("empty", "the message has no value")
    if len(data) > MAX_EVENT_BYTES:
        raise BadEvent(
            "too_large", f"the message has {len(data)} bytes, more than {MAX_EVENT_BYTES}"
        )
    try:
        event = _interactions.decode(data)
        check_interaction(event, broker_time, use_cases)
        return event
    except _REFUSALS as refusal:
        decode = partial(_decode_strictly, broker_time=broker_time, use_cases=use_cases)
        return _decode_again(data, refusal, decode, INTERACTION, tolerance, broker_time)


def _decode_strictly(data: bytes, broker_time: float, use_cases: UseCases) -> Interaction:
    event = _interactions.decode(data)
    check_interaction(event, broker_time, use_cases)
    return event


def check_interaction(event: Interaction, broker_time: float, use_cases: UseCases) -> None:
    """Raises BadEvent unless every field of `event` is within the contract."""
    if event.schema_version != SCHEMA_VERSION:
        raise BadEvent(
            "unknown_schema_version",
            f"schema_version is {event.schema_version}; this release reads {SCHEMA_VERSION}",
        )
    event_id, user_id, item_id = event.event_id, event.user_id, event.item_id
    # one check of three ordinary ids together; each alone if it fails
    together = event_id + user_id + item_id
    if not (
        together.isascii()
        and together.isprintable()
        and " " not in together
        and 0 < len(event_id) <= MAX_ID_BYTES
        and 0 < len(user_id) <= MAX_ID_BYTES
        and 0 < len(item_id) <= MAX_ID_BYTES
    ):
        check_id("event_id", event_id)
        check_id("user_id", user_id)
        check_id("item_id", item_id)
    if event.event_type not in use_cases.event_types:
        raise BadEvent(
            "unknown_event_type",
            f"event_type {event.event_type!r} is not configured; add it to [event_types]",
        )
    if event.use_case is not None and event.use_case not in use_cases.by_name:
        raise BadEvent(
            "unknown_use_case",
            f"use_case {event.use_case!r} is not configured; add it to [use_cases]",
        )
    # all that is within these bounds passes check_time
    if not EARLIEST_S <= event.timestamp <= broker_time + MAX_FUTURE_S <= LATEST_S:
        check_time("timestamp", event.timestamp, broker_time)
    if event.value is not None and not 0 <= event.value <= MAX_VALUE:
        raise BadEvent("bad_value", f"value {event.value!r} is not within [0, {MAX_VALUE:g}]")
    if event.context is not NO_CONTEXT and bytes(event.context)[:1] not in (b"{", b"n", b""):
        raise BadEvent("bad_field", problems.wrong_type("context", "object | null", event.context))


def decode_item(data: bytes, broker_time: float, tolerance: Tolerance = STRICT) -> Item:
    """Decode one item of the catalogue; the arguments are those of `decode_interaction`.

    Raises BadEvent.
    """

    def decode(data: bytes) -> Item:
        item = _items.decode(data)
        check_id("item_id", item.item_id)
        check_id("item_type", item.item_type)
        if item.created_at is not None:
            check_time("created_at", item.created_at, broker_time)
            check_no_day("created_at", item.created_at)
        return item

    _check_size(data)
    try:
        return decode(data)
    except _REFUSALS as refusal:
        return _decode_again(data, refusal, decode, ITEM, tolerance, broker_time)


def decode_user(data: bytes, broker_time: float, tolerance: Tolerance = STRICT) -> User:
    """Decode one user; the arguments are those of `decode_interaction`. Raises BadEvent."""

    def decode(data: bytes) -> User:
        user = _users.decode(data)
        check_id("user_id", user.user_id)
        return user

    _check_size(data)
    try:
        return decode(data)
    except _REFUSALS as refusal:
        return _decode_again(data, refusal, decode, USER, tolerance, broker_time)


def decode_id(key: bytes | None) -> str:
    """Decode the message key of the topics `items` and `users`. Raises BadEvent."""
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        raise BadEvent("bad_key", "the message key is not UTF-8") from None
    check_id("the message key", text)
    return text


def _decode_again(
    data: bytes,
    refusal: Exception,
    decode: Callable[[bytes], _Decoded],
    fields: Fields,
    tolerance: Tolerance,
    broker_time: float,
) -> _Decoded:
    """Decode `data` without its framing and with the fields rewritten that `tolerance` accepts.

    `refusal`: what `decode` raised for `data` as it stands. Raises BadEvent.
    """
    body, hints = mend(envelopes.unwrap(data), fields, tolerance, broker_time)
    if body is not data:
        try:
            return decode(body)
        except _REFUSALS as later:
            refusal = later
    if isinstance(refusal, BadEvent):
        code, reason = refusal.code, str(refusal)
    else:
        code = "bad_field" if isinstance(refusal, msgspec.ValidationError) else "not_json"
        reason = problems.in_words(refusal, body, fields.noun)
        if any(reason.startswith(f"{name} must be") for name in fields.times):
            hints.append(_TIME_TEXTS if tolerance.time_text else _TIMES)
    raise BadEvent(code, "; ".join([reason, *hints])) from None


def _check_size(data: bytes) -> None:
    if len(data) > MAX_CATALOGUE_BYTES:
        raise BadEvent(
            "too_large", f"the message has {len(data)} bytes, more than {MAX_CATALOGUE_BYTES}"
        )


def check_id(name: str, value: str) -> None:
    """Raises BadEvent unless `value` is an id within the contract; `name`: what holds it."""
    if not value or value.isspace():
        raise BadEvent("bad_id", f"{name} is empty")
    if len(value) > MAX_ID_BYTES or (
        not value.isascii() and len(value.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES
    ):
        raise BadEvent("bad_id", f"{name} has more than {MAX_ID_BYTES} bytes")
    if not value.isprintable():
        raise BadEvent("bad_id", f"{name} holds a control character or a lone surrogate")


def require_key(entry: _Entry, identifier: str) -> _Entry:
    """Return `entry` if its id is `identifier`, the message key. Raises BadEvent."""
    own = entry.item_id if isinstance(entry, Item) else entry.user_id
    if own != identifier:
        raise BadEvent(
            "bad_key", f"the message key is {identifier!r}, but the id in the entry is {own!r}"
        )
    return entry
