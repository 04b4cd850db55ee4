"""Decides which items a request admits, item by item and in words.

`engines/catalogue.py` does the same for all rows at once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import cached_property

import msgspec

from core.types import AttributeFilter, Filters, Item, Request, UseCase, Value


class Conditions(msgspec.Struct, frozen=True, dict=True):
    """The filters of a request that do not depend on the user.

    `use_case_type`: the item type that the use case serves.
    """

    item_types: tuple[str, ...] = ()
    use_case_type: str | None = None
    categories: tuple[str, ...] = ()
    attributes: tuple[AttributeFilter, ...] = ()
    available_only: bool = True

    @cached_property
    def key(self) -> Hashable:
        """Cache key: equal for equal conditions.

        Attributes as text, because a list has no hash and 1 == True.
        """
        return (
            self.item_types,
            self.use_case_type,
            self.categories,
            self.available_only,
            repr(self.attributes),
        )

    @property
    def describe_items(self) -> bool:
        """Whether an item needs a catalogue entry to pass."""
        return bool(
            self.item_types
            or self.use_case_type is not None
            or self.categories
            or any(_is_set(condition) for condition in self.attributes)
        )


def conditions(request: Request) -> Conditions:
    """The conditions of `request`, its use case's item type included."""
    filters = request.filters
    use_case_type = None if request.use_case is None else request.use_case.item_type
    return Conditions(
        filters.item_types,
        use_case_type,
        filters.categories,
        filters.attributes,
        filters.available_only,
    )


def defaults(use_case: UseCase | None) -> Filters:
    """The filters of a request that names none."""
    return (
        Filters()
        if use_case is None
        else Filters(available_only=use_case.available_only, exclude_seen=use_case.exclude_seen)
    )


def passes(item: Item | None, required: Conditions) -> bool:
    """Whether `item` passes; None is an item without a catalogue entry."""
    return not objections(item, required)


def objections(item: Item | None, required: Conditions) -> list[str]:
    """Every condition that `item` fails, in words."""
    if item is None:
        return (
            ["the catalogue has no entry for it, and the request filters by what an entry says"]
            if required.describe_items
            else []
        )
    failures = []
    if required.available_only and not item.available:
        failures.append("it is not available")
    if required.use_case_type is not None and item.item_type != required.use_case_type:
        failures.append(
            f"its type is {item.item_type!r}, and the use case serves {required.use_case_type!r}"
        )
    if required.item_types and item.item_type not in required.item_types:
        failures.append(f"its type is {item.item_type!r}, asked for {_listed(required.item_types)}")
    if required.categories and not set(required.categories) & set(item.categories):
        failures.append(
            f"its categories are {_listed(item.categories)}, asked for "
            f"{_listed(required.categories)}"
        )
    failures += [
        (
            f"its {condition.name} is {item.attributes.get(condition.name)!r}, asked for "
            f"{describe(condition)}"
        )
        for condition in required.attributes
        if not attribute_passes(item.attributes.get(condition.name), condition)
    ]
    return failures


def attribute_passes(value: Value, condition: AttributeFilter) -> bool:
    """Whether an attribute's value passes every part of the filter that is set.

    A missing value passes only an empty filter.

    `equals` and `one_of` compare text: a number by its value (2 and 2.0 are "2"), a truth value as
    "true" or "false", a list by any of its entries (`equals` with a list: by all of them, in any
    order). A range compares numbers only, both ends included.
    """
    if isinstance(condition.equals, list):
        if not isinstance(value, list) or set(value) != set(condition.equals):
            return False
    elif condition.equals is not None and texts(condition.equals)[0] not in texts(value):
        return False
    if condition.one_of is not None and not set(condition.one_of) & set(texts(value)):
        return False
    if condition.low is not None or condition.high is not None:
        size = number(value)
        return (condition.low is None or size >= condition.low) and (
            condition.high is None or size <= condition.high
        )
    return True


def texts(value: Value) -> list[str]:
    """The texts that a value is compared by."""
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
    """The value as a number; NaN, which lies in no range, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def describe(condition: AttributeFilter) -> str:
    """An attribute filter in words."""
    parts = []
    if condition.equals is not None:
        parts.append(f"{condition.equals!r}")
    if condition.one_of is not None:
        parts.append(f"one of {_listed(condition.one_of)}")
    if condition.low is not None:
        parts.append(f"at least {condition.low:g}")
    if condition.high is not None:
        parts.append(f"at most {condition.high:g}")
    return " and ".join(parts) or "anything"


def _is_set(condition: AttributeFilter) -> bool:
    return (
        condition.equals is not None
        or condition.one_of is not None
        or condition.low is not None
        or condition.high is not None
    )


def _listed(values: tuple[str, ...] | list[str]) -> str:
    return ", ".join(map(repr, values)) or "none"
