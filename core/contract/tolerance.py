"""Rewrites fields that are not as the contract says, but whose meaning is clear.

Each kind of rewriting is off unless its setting is on; the reason of a refused message names the
setting. A field is rewritten only if the contract would refuse it, so a valid message means the
same with every setting.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from core.contract import times
from core.contract.envelopes import fields_of
from core.contract.times import PER_SECOND, TimeUnit


class Tolerance(msgspec.Struct, frozen=True):
    """What is accepted beyond the contract; core.settings.streams has a setting for each."""

    integer_ids: bool = False
    empty_list_as_object: bool = False
    null_as_empty_list: bool = False
    time_text: bool = False
    time_unit: TimeUnit = "s"


STRICT = Tolerance()


class Fields(NamedTuple):
    """Which fields of a message may be rewritten; `noun`: what the message is to people."""

    ids: tuple[str, ...]
    objects: tuple[str, ...]
    lists: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    noun: str = "event"


INTERACTION = Fields(("event_id", "user_id", "item_id"), ("context",), times=("timestamp",))
ITEM = Fields(("item_id",), ("attributes",), ("categories", "tags"), ("created_at",), "item")
USER = Fields(("user_id",), ("attributes",), ("roles", "interests"), noun="user")

_INTEGER = re.compile(rb"-?(0|[1-9][0-9]*)")
_EMPTY_LIST = re.compile(rb"\[\s*\]")


class Mended(NamedTuple):
    """A message after its fields were rewritten.

    `hints`: which settings that are off would have accepted a field.
    """

    data: bytes
    hints: list[str]


class _Rewriting(NamedTuple):
    """What a field means, and the setting that accepts it."""

    text: bytes
    setting: str
    value: bool | TimeUnit
    meaning: str

    @property
    def hint(self) -> str:
        value = "true" if self.value is True else self.value
        return f"ACCEPT_{self.setting.upper()}={value} accepts {self.meaning}"


def mend(data: bytes, fields: Fields, tolerance: Tolerance, record_time: float) -> Mended:
    """Rewrite the fields of a JSON object that `tolerance` accepts; answers any other message
    unchanged.

    `record_time`: of the record in Kafka, in seconds since 1970.
    """
    values = fields_of(data) or {}
    mended: dict[str, msgspec.Raw] = {}
    hints: dict[str, None] = {}
    for name, raw in values.items():
        rewriting = _rewriting(name, bytes(raw), fields, record_time)
        if rewriting is None:
            continue
        if getattr(tolerance, rewriting.setting) == rewriting.value:
            mended[name] = msgspec.Raw(rewriting.text)
        else:
            hints[rewriting.hint] = None
    if mended:
        data = msgspec.json.encode({**values, **mended})
    return Mended(data, list(hints))


def _rewriting(name: str, text: bytes, fields: Fields, record_time: float) -> _Rewriting | None:
    """How the field is rewritten; None where it is left as it is."""
    if name in fields.ids and _INTEGER.fullmatch(text):
        return _Rewriting(b'"%s"' % text, "integer_ids", True, "integer ids")
    if name in fields.objects and _EMPTY_LIST.fullmatch(text):
        return _Rewriting(b"{}", "empty_list_as_object", True, "[] as an empty object")
    if name in fields.lists and text == b"null":
        return _Rewriting(b"[]", "null_as_empty_list", True, "null as an empty list")
    if name in fields.times:
        return _rewriting_of_time(text, record_time)
    return None


def _rewriting_of_time(text: bytes, record_time: float) -> _Rewriting | None:
    if text[:1] == b'"':
        seconds = _seconds_of_text(text)
        return (
            None
            if seconds is None
            else _Rewriting(repr(seconds).encode(), "time_text", True, "times as ISO 8601 text")
        )
    try:
        number = float(text)
    except ValueError:  # null, or of another type
        return None
    unit = times.unit_of(number, record_time)
    if unit is None:
        return None
    seconds = number / PER_SECOND[unit]
    return _Rewriting(repr(seconds).encode(), "time_unit", unit, f"times in {unit}")


def _seconds_of_text(text: bytes) -> float | None:
    try:
        return times.parse_iso(msgspec.json.decode(text, type=str))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
