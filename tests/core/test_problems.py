"""What is wrong with a message is said in the words of the person who sends it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest
from msgspec import Meta

from core import codec
from core.contract.problems import in_words
from core.errors import BadEvent
from core.types import Interaction, Item, User
from core.use_cases import load

NOW = 1_800_000_000.0
GOOD = b'"event_id":"e","user_id":"u","item_id":"i","event_type":"view","timestamp":1'
ITEM = b'"item_id":"i","item_type":"t",'

EVENTS = {
    b"{}": "event_id is missing",
    b"[]": "the event must be an object, it is a list",
    b"5": "the event must be an object, it is the number 5",
    b"null": "the event must be an object, it is null",
    b'{"user_id":5}': "user_id must be text, this event has the number 5",
    b'{"user_id":1.5}': "user_id must be text, this event has the number 1.5",
    b'{"user_id":null}': "user_id must be text, this event has null",
    b'{"user_id":true}': "user_id must be text, this event has true",
    b'{"user_id":[1]}': "user_id must be text, this event has a list",
    b'{"user_id":{}}': "user_id must be text, this event has an object",
    b"{" + GOOD[:-1] + b'"x"}': (
        "timestamp must be a number, this event has the text 'x'; a time is a number of seconds "
        "since 1970"
    ),
    b"{" + GOOD + b"e999}": "timestamp is a number that is out of range",
    b"{" + GOOD + b',"value":"4"}': "value must be a number or null, this event has the text '4'",
    b"{" + GOOD + b',"use_case":5}': "use_case must be text or null, this event has the number 5",
    b"{" + GOOD + b',"schema_version":1.5}': (
        "schema_version must be a whole number, this event has the number 1.5"
    ),
    b"{"
    + GOOD
    + b',"context":5}': "context must be an object or null, this event has the number 5",
    b'{"user_id":"' + b"x" * 90 + b'","item_id":5}': (
        "item_id must be text, this event has the number 5"
    ),
    b'{"user_id":5': "user_id must be text, this event has a whole number",
    b"{": "the event is not JSON: it ends before its last bracket or quote is closed",
    b'{"a":"a" "b"}': "the event is not JSON: expected ',' or '}' at byte 9",
    b"{" + GOOD + b",}": "the event is not JSON: trailing comma in object at byte 78",
    b"{" + GOOD + b"} x": "the event is not JSON: text after its end at byte 80",
    b"{'a':1}": "the event is not JSON: a field name that is not in double quotes at byte 1",
    b'{"value":NaN}': "the event is not JSON: an unexpected character at byte 9",
    b'{"user_id":"\xff"}': "the event is not UTF-8: it has the byte 0xff",
    b'{"context":' + b"[" * 5000: "the event is nested too deeply",
}
ITEMS = {
    b'"attributes":{"a":1,"b":{}}': (
        "attributes.b must be true or false, a number, text, a list or null, "
        "this item has an object"
    ),
    b'"attributes":{"a":"x","b":["y",5]}': (
        "entry 2 of attributes.b must be text, this item has the number 5"
    ),
    b'"attributes":{"a":1e999}': "attributes is a number that is out of range",
    b'"attributes":[1]': "attributes must be an object, this item has a list",
    b'"categories":"x"': "categories must be a list, this item has the text 'x'",
    b'"categories":["x",5]': "entry 2 of categories must be text, this item has the number 5",
    b'"available":"yes"': "available must be true or false, this item has the text 'yes'",
    b'"created_at":"2027-01-15"': (
        "created_at must be a number or null, this item has the text '2027-01-15'; a time is a "
        "number of seconds since 1970"
    ),
}


@pytest.mark.parametrize("data", EVENTS)
def test_the_reason_of_a_refused_event_names_field_and_value(data: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        codec.decode_interaction(data, NOW, load(None))
    assert str(refused.value).split("; ACCEPT")[0] == EVENTS[data]


@pytest.mark.parametrize("fields", ITEMS)
def test_the_reason_of_a_refused_item_names_attribute_and_entry(fields: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        codec.decode_item(b"{" + ITEM + fields + b"}", NOW)
    assert str(refused.value).split("; ACCEPT")[0] == ITEMS[fields]


@pytest.mark.parametrize(
    ("context", "words"), [(b"[1]", "a list"), (b"hello", "the text 'hello'"), (b'"x"', "'x'")]
)
def test_a_context_that_is_no_object_is_refused_even_where_it_is_no_json(
    context: bytes, words: str
) -> None:
    """Imports check an event before it is JSON."""
    event = Interaction("e", "u", "i", "view", 1.0, context=msgspec.Raw(context))
    with pytest.raises(BadEvent, match=f"context must be an object or null, .* has .*{words}"):
        codec.check_interaction(event, NOW, load(None))


class _Span(NamedTuple):
    low: int
    high: int = 9


class _Bounds(msgspec.Struct, forbid_unknown_fields=True):
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    above: Annotated[float, Meta(gt=0, lt=9)] = 1
    count: Annotated[int, Meta(ge=1)] = 1
    steps: Annotated[int, Meta(multiple_of=4)] = 4
    pair: tuple[int, int] = (1, 2)
    span: _Span = _Span(1)
    name: Annotated[str, Meta(min_length=1, max_length=3, pattern="^[a-z]*$")] = "a"
    names: Annotated[list[str], Meta(min_length=1, max_length=2)] = msgspec.field(
        default_factory=lambda: ["a"]
    )
    by_name: Annotated[dict[str, int], Meta(max_length=1)] = {}
    method: Literal["min_max", "rank"] = "rank"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"share": 1.5}, "share must be a number, at most 1"),
        ({"share": -1}, "share must be a number, at least 0"),
        ({"above": 0.0}, "above must be a number, above 0"),
        ({"above": 9.0}, "above must be a number, below 9"),
        ({"count": 0}, "count must be a whole number, at least 1"),
        ({"steps": 3}, "steps must be a multiple of 4"),
        ({"pair": [1]}, "pair must have 2 entries"),
        ({"span": []}, "span must have 1 to 2 entries"),
        ({"pair": [1, "b"]}, "entry 2 of pair must be a whole number, this file has the text 'b'"),
        ({"name": ""}, "name must have at least 1 characters"),
        ({"name": "abcd"}, "name must have at most 3 characters"),
        ({"name": "A"}, "name must match '^[a-z]*$'"),
        ({"names": []}, "names must have at least 1 entries"),
        ({"names": ["a"] * 3}, "names must have at most 2 entries"),
        ({"by_name": {"a": 1, "b": 2}}, "by_name must have at most 1 fields"),
        ({"by_name": {"a": "x"}}, "by_name.a must be a whole number, this file has the text 'x'"),
        ({"method": "sum"}, "method is 'sum', which is none of its values"),
        ({"metod": 1}, "metod is no known field"),
    ],
)
def test_bounds_of_a_configuration_are_said_in_words(fields: dict[str, Any], words: str) -> None:
    for decode in (_convert, _decode_json):
        with pytest.raises(msgspec.ValidationError) as invalid:
            decode(fields)
        assert in_words(invalid.value, fields, "file") == words


def _convert(fields: dict[str, Any]) -> _Bounds:
    return msgspec.convert(fields, _Bounds)


def _decode_json(fields: dict[str, Any]) -> _Bounds:
    return msgspec.json.decode(msgspec.json.encode(fields), type=_Bounds)


@pytest.mark.parametrize("kind", [Interaction, Item, User])
def test_no_reason_has_a_path_or_a_type_of_the_library(kind: type[msgspec.Struct]) -> None:
    """Every field of the contract, with a value of every type of JSON."""
    good: dict[str, Any] = {"timestamp": NOW, "event_type": "view"} | dict.fromkeys(
        ("event_id", "user_id", "item_id", "item_type"), "x"
    )
    reasons = [
        _reason(kind, codec.encode_json({**good, name: value}))
        for name in kind.__struct_fields__
        for value in (5, 1.5, True, None, "x", [], [1], {}, {"a": {}}, {"a": [None]})
    ]
    assert sum(map(bool, reasons)) > len(reasons) / 3
    assert not [text for text in reasons if any(mark in text for mark in ("`", "$", "Expected"))]


def _reason(kind: type[msgspec.Struct], data: bytes) -> str:
    """Why the message is refused; empty when it is valid."""
    try:
        if kind is Interaction:
            codec.decode_interaction(data, NOW, load(None))
        elif kind is Item:
            codec.decode_item(data, NOW)
        else:
            codec.decode_user(data, NOW)
    except BadEvent as bad:
        return str(bad)
    return ""
