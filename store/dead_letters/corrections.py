"""Corrects the message of a dead letter before it is sent again.

In this order: the framing of a schema registry is removed, casts change the type of fields, fields
are set, and what the tolerance accepts is rewritten. So the message that is sent is valid for every
reader, whatever its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from core import codec
from core.contract import envelopes, times
from core.contract.times import TimeUnit
from core.contract.tolerance import Fields, Tolerance, mend
from core.errors import BadEvent
from store.dead_letters.letters import Coordinates


class Corrections(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in the messages that are sent again.

    `fields`: field -> JSON value, set in every letter that is a JSON object. `casts`: field -> name
    of a cast (CASTS). `time_unit`: of numbers too large for seconds; None: as the settings say.
    `edits`: coordinates -> the whole new message.
    """

    fields: Mapping[str, Any] = {}
    casts: Mapping[str, str] = {}
    time_unit: TimeUnit | None = None
    edits: Mapping[Coordinates, bytes] = {}

    def apply(self, value: bytes, defaults: Mapping[str, Any]) -> bytes:
        """The JSON object `value` over `defaults`, with casts and set fields; any other value as it
        is. Raises BadEvent: a field that cannot be cast.
        """
        fields = json_object(value)
        if fields is None:
            return value
        for name, cast in self.casts.items():
            if name in fields:
                fields[name] = _cast(name, fields[name], cast)
        return codec.encode_json({**defaults, **fields, **self.fields})

    def rewrite(
        self, value: bytes, fields: Fields, accepted: Tolerance, record_time: float
    ) -> bytes:
        """`value`, with the fields rewritten that `accepted` and the time unit accept.

        `record_time`: of the record to be sent, in seconds since 1970.
        """
        if self.time_unit is not None:
            accepted = msgspec.structs.replace(accepted, time_unit=self.time_unit)
        return mend(value, fields, accepted, record_time).data


def json_object(value: bytes) -> dict[str, Any] | None:
    """The JSON object in `value`, if it is one, also behind the framing of a schema registry."""
    try:
        fields = msgspec.json.decode(envelopes.without_frame(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def as_text(value: Any) -> Any:
    """A number as the text that an id would be; any other value as it is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_time(value: Any) -> Any:
    seconds = times.parse_iso(value) if isinstance(value, str) else None
    return value if seconds is None else seconds


def _as_object(value: Any) -> Any:
    return {} if value is None or value == [] else value


def _as_list(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


CASTS: dict[str, tuple[Callable[[Any], Any], tuple[type, ...]]] = {
    "str": (as_text, (str,)),
    "number": (_as_number, (int, float)),
    "time": (_as_time, (int, float)),
    "object": (_as_object, (dict,)),
    "list": (_as_list, (list,)),
}
"""Name of a cast -> what it does, and the types that its result must have."""


def _cast(name: str, value: Any, cast: str) -> Any:
    convert, types = CASTS[cast]
    result = convert(value)
    if not isinstance(result, types) or isinstance(result, bool):
        raise BadEvent("bad_cast", f"{name} {value!r} cannot be cast to {cast}")
    return result
