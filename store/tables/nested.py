"""Converts cells that hold lists, objects and attributes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from core.errors import BadEvent
from core.types import Value
from store.tables.values import MISSING, plain, text_cell

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")
"""Not 00123, which is an identifier."""
_TRUTH = {"true": True, "false": False}


def texts(separator: str | None) -> Callable[[Any], list[str]]:
    """A conversion to a list of texts: from a list, JSON, a Python literal, or separated text.

    `separator`: None for | where the text has one, else a comma.
    """

    def convert(value: Any) -> list[str]:
        if isinstance(value, str):
            if value[0] in "[({" and value[-1] in "])}":
                value = literal(value)
            if isinstance(value, str):
                value = value.split(separator or ("|" if "|" in value else ","))
        return list(_flat(value))

    return convert


def _flat(value: Any) -> list[str]:
    if isinstance(value, dict):
        name = value.get("name", value.get("description"))
        return [] if name is None else _flat(name)
    if isinstance(value, list | tuple | set):
        return [text for part in value for text in _flat(part)]
    present = plain(value)
    return [] if present is None else [text_cell(present)]


def literal(text: str) -> Any:
    """The value of JSON or of a Python literal; the text itself where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return text


def attribute(value: Any) -> Value:
    """The value of an attribute: text, number, truth value or a list of texts."""
    if isinstance(value, str):
        return text_cell(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple | set):
        return _flat(value)
    return text_cell(value)


def attribute_kind(cells: Sequence[Any]) -> Callable[[Any], Value]:
    """The conversion of a column of attributes: numbers and truth values that a text file holds as
    text become such, where all of these first cells are.
    """
    texts_ = [cell.strip() for cell in cells if isinstance(cell, str)]
    present = [text for text in texts_ if text not in MISSING]
    if present and all(text.lower() in ("true", "false") for text in present):
        return lambda value: _TRUTH.get(str(value).lower(), attribute(value))
    if present and all(_NUMBER.fullmatch(text) for text in present):
        return _number_or_attribute
    return attribute


def _number_or_attribute(value: Any) -> Value:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return attribute(value)


def attributes(value: Any) -> dict[str, Value]:
    """The attributes of an object, or of the JSON text of one. Raises BadEvent."""
    value = literal(value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise BadEvent("bad_field", "attributes is no object")
    return {
        str(name): attribute(present)
        for name, cell in value.items()
        if (present := plain(cell)) is not None
    }
