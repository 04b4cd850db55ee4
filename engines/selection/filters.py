"""Which items may be shown: the conditions of a request, item by item and in words. `catalogue.py` holds the same, vectorised."""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import cached_property

import msgspec

from core.types import AttributeFilter, Filters, Item, Request, UseCase, Value


class Conditions(msgspec.Struct, frozen=True, dict=True):
    """The part of a request that the same items pass for everyone. `use_case_type`: the item type that the use case serves."""

    item_types: tuple[str, ...] = ()
    use_case_type: str | None = None
    categories: tuple[str, ...] = ()
    attributes: tuple[AttributeFilter, ...] = ()
    available_only: bool = True

    @cached_property
    def key(self) -> Hashable:
        """The same for equal conditions. Attributes as text: a list has no hash, and 1 == True."""
        return self.item_types, self.use_case_type, self.categories, self.available_only, repr(self.attributes)

    @property
    def describe_items(self) -> bool:
        """Whether passing needs something that only a catalogue entry can say."""
        return bool(self.item_types or self.use_case_type is not None or self.categories or any(_is_set(one) for one in self.attributes))


def conditions(request: Request) -> Conditions:
    """The conditions of `request`, its use case's item type included."""
    filters = request.filters
    use_case_type = None if request.use_case is None else request.use_case.item_type
    return Conditions(filters.item_types, use_case_type, filters.categories, filters.attributes, filters.available_only)


def defaults(use_case: UseCase | None) -> Filters:
    """The filters of a caller who named none."""
    return Filters() if use_case is None else Filters(available_only=use_case.available_only, exclude_seen=use_case.exclude_seen)


def passes(item: Item | None, asked: Conditions) -> bool:
    """Whether `item` passes; None is an item that only a model knows."""
    return not objections(item, asked)


def objections(item: Item | None, asked: Conditions) -> list[str]:
    """Every condition that `item` fails, in words."""
    if item is None:
        return ["the catalogue has no entry for it, and the request filters by what an entry says"] if asked.describe_items else []
    found = []
    if asked.available_only and not item.available:
        found.append("it is not available")
    if asked.use_case_type is not None and item.item_type != asked.use_case_type:
        found.append(f"its type is {item.item_type!r}, and the use case serves {asked.use_case_type!r}")
    if asked.item_types and item.item_type not in asked.item_types:
        found.append(f"its type is {item.item_type!r}, asked for {_listed(asked.item_types)}")
    if asked.categories and not set(asked.categories) & set(item.categories):
        found.append(f"its categories are {_listed(item.categories)}, asked for {_listed(asked.categories)}")
    found += [
        f"its {one.name} is {item.attributes.get(one.name)!r}, asked for {describe(one)}"
        for one in asked.attributes
        if not attribute_passes(item.attributes.get(one.name), one)
    ]
    return found


def attribute_passes(value: Value, one: AttributeFilter) -> bool:
    """Whether an attribute's value passes every part of the filter that is set; no value passes only an empty filter.

    `equals` and `one_of` compare text: a number by its value (2 and 2.0 are "2"), a truth value as "true" or "false", a list by
    any of its entries (`equals` with a list: by all of them, in any order). A range compares numbers only, both ends included.
    """
    if isinstance(one.equals, list):
        if not isinstance(value, list) or set(value) != set(one.equals):
            return False
    elif one.equals is not None and texts(one.equals)[0] not in texts(value):
        return False
    if one.one_of is not None and not set(one.one_of) & set(texts(value)):
        return False
    if one.low is not None or one.high is not None:
        size = number(value)
        return (one.low is None or size >= one.low) and (one.high is None or size <= one.high)
    return True


def texts(value: Value) -> list[str]:
    """The texts by which a value is compared."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, float) and value.is_integer():
        return [str(int(value))]
    return [str(value)]


def number(value: Value) -> float:
    """The value as a number, NaN (within no range) for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def describe(one: AttributeFilter) -> str:
    """An attribute filter in words."""
    parts = []
    if one.equals is not None:
        parts.append(f"{one.equals!r}")
    if one.one_of is not None:
        parts.append(f"one of {_listed(one.one_of)}")
    if one.low is not None:
        parts.append(f"at least {one.low:g}")
    if one.high is not None:
        parts.append(f"at most {one.high:g}")
    return " and ".join(parts) or "anything"


def _is_set(one: AttributeFilter) -> bool:
    return one.equals is not None or one.one_of is not None or one.low is not None or one.high is not None


def _listed(values: tuple[str, ...] | list[str]) -> str:
    return ", ".join(map(repr, values)) or "none"
