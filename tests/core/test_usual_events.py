"""Many events at once are decoded as each alone, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import codec
from core.contract.times import EARLIEST_S, LATEST_S, MAX_FUTURE_S
from core.errors import BadEvent
from core.types import Interaction
from core.use_cases import load, parse
from core.usual_events import UsualEvents

NOW = 1_800_000_000.0
USE_CASES = load(None)
USUAL: dict[str, Any] = {
    "event_id": "0f9a",
    "user_id": "user-7",
    "item_id": "startup-9",
    "event_type": "view",
    "timestamp": NOW,
}
ID = "x" * codec.MAX_ID_BYTES
ODD_IDS = ["", " ", "a b", "a\n", "\x00", "\x7f", "café", "\u2028", ID, ID + "x", 7, None]
ODD_TIMES = [
    0,
    EARLIEST_S - 1,
    EARLIEST_S,
    NOW + MAX_FUTURE_S,
    NOW + MAX_FUTURE_S + 1,
    str(NOW),
    None,
]
ODD: list[dict[str, Any]] = [
    *[{name: odd} for name in ("event_id", "user_id", "item_id") for odd in ODD_IDS],
    {"event_type": "unheard_of"},
    {"event_type": "View"},
    {"use_case": "unheard_of"},
    {"use_case": None},
    {"use_case": "developer_startup"},
    *[{"timestamp": odd} for odd in ODD_TIMES],
    *[{"value": odd} for odd in (None, 0, 4, -1, codec.MAX_VALUE, codec.MAX_VALUE + 1, "4")],
    *[{"context": odd} for odd in (None, {}, {"a b": "\x07"}, [], "x", 1, True)],
    *[{"schema_version": odd} for odd in (1, 2, "1", None)],
    *[{"recommendation_id": odd} for odd in (None, "9f86d081884c7d65", 7)],
    {"unknown": [1]},
    {},
]
RAW = [None, b"", b"{}", b"[]", b"\xff", b"\xef\xbb\xbf{}", b"x" * (codec.MAX_EVENT_BYTES + 1)]
RAW += [b'{"event_id":"\\ud800","user_id":"u","item_id":"i","event_type":"view","timestamp":1.8e9}']
RAW += [b'{"event_id":"\xff","user_id":"u","item_id":"i","event_type":"view","timestamp":1.8e9}']
RAW += [b'{"event_id":"e","user_id":"u","item_id":"i","event_type":"view","timestamp":NaN}']


def encoded(*changes: dict[str, Any]) -> bytes:
    event = dict(USUAL)
    for change in changes:
        event |= change
    return codec.encode_json(event)


def fields(event: Interaction) -> list[Any]:
    """The fields in the order of the type; a context by its bytes."""
    values = [getattr(event, name) for name in Interaction.__struct_fields__]
    return [
        (type(value), bytes(value) if type(value) is msgspec.Raw else value) for value in values
    ]


def one_by_one(values: list[bytes | None], times: list[float]) -> list[Interaction] | None:
    """As `decode_interaction` decodes them; None if it refuses one."""
    try:
        return [
            codec.decode_interaction(value, time, USE_CASES)
            for value, time in zip(values, times, strict=True)
        ]
    except BadEvent:
        return None


def assert_same_or_refused(values: list[bytes | None], times: list[float]) -> None:
    together, alone = UsualEvents(USE_CASES).decode(values, times), one_by_one(values, times)
    if together is not None:
        assert alone is not None
        assert list(map(fields, together)) == list(map(fields, alone))


@pytest.mark.parametrize("odd", [*map(encoded, ODD), *RAW], ids=lambda odd: repr(odd)[-60:])
def test_an_odd_event_among_usual_ones_is_decoded_as_alone_or_refused(odd: bytes | None) -> None:
    usual = encoded()
    for time in (NOW, NOW + 1, -0.001, 0.0, NOW / 1000, NOW * 1000, LATEST_S):
        for values in ([odd], [odd, usual], [usual, odd], [usual, odd, usual]):
            assert_same_or_refused(values, [NOW if value is usual else time for value in values])


@given(st.lists(st.tuples(st.sampled_from(ODD), st.sampled_from(ODD)), min_size=1, max_size=5))
def test_any_events_together_are_decoded_as_alone_or_refused(
    changes: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    values: list[bytes | None] = [encoded(*change) for change in changes]
    assert_same_or_refused(values, [NOW] * len(values))


@given(st.text(), st.text(), st.text())
def test_any_ids_are_decoded_as_alone_or_refused(event_id: str, user_id: str, item_id: str) -> None:
    ids = {"event_id": event_id, "user_id": user_id, "item_id": item_id}
    try:
        value = encoded(ids)
    except UnicodeEncodeError:
        return
    assert_same_or_refused([value], [NOW])


def test_usual_events_are_decoded_together() -> None:
    """Else ingest would be right, but take twice the processor time."""
    changes: list[dict[str, Any]] = [
        {},
        {"event_id": ID, "user_id": "3b1f-%:~!", "item_id": '"\\/'},
        {"use_case": "developer_startup", "value": 4.5, "event_type": "rating"},
        {"context": {"page": "a b", "é": None}, "recommendation_id": "r", "schema_version": 1},
        {"timestamp": int(NOW) - 3600, "unknown": 1},
    ]
    values = [encoded(change) for change in changes]
    events = UsualEvents(USE_CASES).decode(values, [NOW, NOW, NOW + 60, NOW, NOW - 60])
    assert events is not None
    assert [event.user_id for event in events] == ["user-7", "3b1f-%:~!", *["user-7"] * 3]
    assert all(isinstance(event, Interaction) for event in events)


def test_a_configuration_without_use_cases_decodes_what_names_none() -> None:
    usual = UsualEvents(parse("[event_types]\nview = 1.0\n"))
    assert usual.decode([encoded()], [NOW]) is not None
    assert usual.decode([encoded({"use_case": "developer_startup"})], [NOW]) is None
