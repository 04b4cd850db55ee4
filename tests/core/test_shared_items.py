"""Entries of a catalogue are equal to what was read, and hold equal parts once."""

from __future__ import annotations

import msgspec
import pytest

from core import shared_items
from core.shared_items import SharedParts
from core.types import Item


def entry(item_id: str, **changed: object) -> Item:
    """An entry with objects of its own, as decoded from JSON."""
    item = Item(
        item_id=item_id,
        item_type="startup",
        title="Payflow",
        categories=["fintech", "health"],
        tags=["fintech"],
        attributes={"stage": "seed", "markets": ["eu", "us"]},
        available=False,
        created_at=1.5,
    )
    return msgspec.json.decode(
        msgspec.json.encode(msgspec.structs.replace(item, **changed)), type=Item
    )


def test_equal_parts_are_the_same_objects() -> None:
    parts = SharedParts()
    first, second = parts.share(entry("a")), parts.share(entry("b"))
    assert (first, second) == (entry("a"), entry("b"))
    for name in ("item_type", "categories", "tags", "attributes"):
        assert getattr(first, name) is getattr(second, name)
    assert first.tags[0] is first.categories[0]


def test_parts_that_only_look_equal_stay_different() -> None:
    parts = SharedParts()
    values = [{"n": 1}, {"n": 1.0}, {"n": True}, {"n": "1"}, {"n": ["1"]}, {"m": 1}, {}]
    shared = [parts.share(entry("a", attributes=value)).attributes for value in values]
    assert [repr(value) for value in shared] == [repr(value) for value in values]
    assert parts.share(entry("a", tags=["a b"])).tags == ["a b"]
    assert parts.share(entry("a", tags=["a", "b"])).tags == ["a", "b"]
    assert parts.share(entry("a", tags=[])).tags == []


def test_what_hardly_repeats_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_items, "MOST", 10)
    parts = SharedParts()
    items = [entry(str(number), tags=[f"tag-{number}"]) for number in range(100)]
    shared = [parts.share(item) for item in items]
    assert shared == items
    assert parts.share(entry("first", tags=["tag-0"])).tags is shared[0].tags
    assert parts.share(entry("last", tags=["tag-99"])).tags is not shared[99].tags
