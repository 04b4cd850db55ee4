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

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d+)?([eE][+-]\d{1,3})?")
"""Not 00123, which is an identifier."""
_COMMA_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14}|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?")
"""With --decimal ,: 1.003,5."""
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


def attribute_kind(
    cells: Sequence[Any], decimal: str = "."
) -> tuple[Callable[[Any], Value], str | None]:
    """The conversion of a column of attributes, and the text that keeps it from being numbers.

    Numbers and truth values that a text file holds as text become such, where all of these first
    cells are. The text is None unless at least half of them are numbers.
    """
    texts_ = [cell.strip() for cell in cells if isinstance(cell, str)]
    present = [text for text in texts_ if text not in MISSING]
    if present and all(text.lower() in _TRUTH for text in present):
        return lambda value: _TRUTH.get(str(value).lower(), attribute(value)), None
    others = [text for text in present if _number(text, decimal) is None]
    if present and not others:
        return lambda value: _number_or_attribute(value, decimal), None
    return attribute, others[0] if 0 < len(others) <= len(present) / 2 else None


def _number_or_attribute(value: Any, decimal: str) -> Value:
    number = _number(value, decimal) if isinstance(value, str) else None
    return attribute(value) if number is None else number


def _number(text: str, decimal: str) -> int | float | None:
    if decimal == ",":
        if not _COMMA_NUMBER.fullmatch(text):
            return None
        text = text.replace(".", "").replace(",", ".")
    elif not _NUMBER.fullmatch(text):
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)


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
