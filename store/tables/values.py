"""Converts cells to the values of fields, column by column.

A converter remembers what it made of a cell, because most cells repeat: a column costs one look-up
a cell. It gives None for a missing value and Invalid for one that breaks the contract.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from core import codec
from core.errors import BadEvent

MISSING = frozenset(
    {"", "NULL", "null", "\\N", "nan", "NaN", "NAN", "None", "<NA>", "N/A", "n/a", "#N/A"}
)
"""Texts that stand for a missing value."""
NOT_AVAILABLE = MISSING | {"NA", "NaT"}
"""The same in a column of ids, numbers or times: R and pandas write these. In other columns, NA may
be Namibia or North America.
"""
REMEMBERED = 100_000
"""Most cells that one converter remembers."""
_EXACT = 2.0**53
"""Whole numbers from here on are not exact in a column of floats."""
_WHOLE = re.compile(r"\d+\.0")
_FLAGS = dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "0", "0.0"), False
)


class Invalid(msgspec.Struct, frozen=True):
    """A value that breaks the contract: a short stable code, and the reason for people."""

    code: str
    reason: str


def plain(value: Any, missing: frozenset[str] = MISSING) -> Any:
    """None for a missing value, text stripped and decoded; anything else as it is.

    Raises BadEvent for bytes that are not UTF-8.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise BadEvent("bad_encoding", f"{value[:40]!r} is not UTF-8") from None
    if isinstance(value, str):
        value = value.strip()
        return None if value in missing else value
    if isinstance(value, float | Decimal) and math.isnan(value):
        return None
    return value


def is_missing(cell: Any) -> bool:
    """Whether the cell has no value. NaN is not equal to itself."""
    return cell is None or cell != cell or (isinstance(cell, str) and cell.strip() in MISSING)


class Converter(dict[Any, Any]):
    """Converts the cells of one column; `convert` raises BadEvent for an invalid cell.

    `missing`: the texts that stand for a missing value.
    """

    missing = MISSING

    def __init__(self, field: str, convert: Callable[[Any], Any]) -> None:
        super().__init__()
        self.field = field
        self.convert = convert
        self.has_invalid = False
        """Whether any cell was invalid so far."""

    def column(self, cells: Sequence[Any]) -> list[Any]:
        """The value of each cell: None where it is missing, Invalid where it is wrong."""
        try:
            return [self[cell] for cell in cells]
        except TypeError:  # a list or an object cannot be remembered
            return [self.value(cell) for cell in cells]

    def value(self, cell: Any) -> Any:
        """The value of one cell."""
        try:
            present = plain(cell, self.missing)
            return None if present is None else self.convert(present)
        except BadEvent as error:
            self.has_invalid = True
            return Invalid(error.code, str(error))

    def __missing__(self, cell: Any) -> Any:
        value = self.value(cell)
        if len(self) >= REMEMBERED:
            self.clear()
        self[cell] = value
        return value


def to_text(value: Any) -> str:
    """Text of a number or a text; a whole float loses its `.0`. Raises BadEvent."""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        if isinstance(value, float) and abs(value) >= _EXACT:
            raise BadEvent(
                "bad_id",
                f"{value!r} is a float that has lost digits: write ids as text or as integers",
            )
        return str(int(value))
    return str(value).strip()


def text_cell(value: Any) -> str:
    """Text that can be written as UTF-8. Raises BadEvent."""
    text = json_text(value) if isinstance(value, list | dict) else to_text(value)
    if not text.isascii():
        _check_encoding(text)
    return text


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text[:40].encode("utf-8", "backslashreplace").decode()
        raise BadEvent(
            "bad_encoding",
            f"{shown!r} holds bytes of another encoding: give --encoding, such as cp1252",
        ) from None


class Ids(Converter):
    """Converts a column of ids within the contract.

    `strip_zero`: the column holds floats as text, `17850.0` is 17850.
    """

    missing = NOT_AVAILABLE

    def __init__(self, field: str, *, strip_zero: bool = False) -> None:
        super().__init__(field, self._convert)
        self._strip_zero = strip_zero

    def column(self, cells: Sequence[Any]) -> list[Any]:
        """As the base; ordinary ids are checked together and stay as they are."""
        if not self._strip_zero:
            kinds = set(map(type, cells))
            if kinds == {int}:
                return list(map(str, cells))
            if kinds == {str}:
                together = "".join(cells)
                if (
                    together.isascii()
                    and together.isprintable()
                    and " " not in together
                    and self.missing.isdisjoint(cells)
                    and len(max(cells, key=len)) <= codec.MAX_ID_BYTES
                ):
                    return list(cells)
        return super().column(cells)

    def _convert(self, value: Any) -> str:
        if isinstance(value, list | dict):
            shown = json_text(value)[:40]
            raise BadEvent("bad_id", f"{self.field} {shown!r} is neither text nor a number")
        text = to_text(value)
        if self._strip_zero and _WHOLE.fullmatch(text):
            text = text[:-2]
        if not text.isascii():
            _check_encoding(text)
        codec.check_id(self.field, text)
        return text


def are_floats(cells: Sequence[Any]) -> bool:
    """Whether a column of ids holds whole numbers that a data frame wrote as floats."""
    present = [cell for cell in cells if cell is not None and cell == cell]  # NaN is not equal
    texts = [
        cell for cell in present if isinstance(cell, str) and cell.strip() not in NOT_AVAILABLE
    ]
    if texts:
        return all(_WHOLE.fullmatch(text.strip()) for text in texts)
    return any(isinstance(cell, float) for cell in present)


class Numbers(Converter):
    """Converts a column of numbers within the contract; `decimal`: a point or a comma."""

    missing = NOT_AVAILABLE

    def __init__(self, field: str, decimal: str) -> None:
        super().__init__(field, self._convert)
        self._decimal = decimal

    def column(self, cells: Sequence[Any]) -> list[Any]:
        """As the base; ordinary numbers are checked together."""
        if self._decimal == ",":  # 1.234 is a thousand
            return super().column(cells)
        try:
            numbers = list(map(float, cells))
        except (TypeError, ValueError, OverflowError):
            return super().column(cells)
        # the sum is not a number where one of them is not
        if numbers and min(numbers) >= 0 and max(numbers) <= codec.MAX_VALUE and sum(numbers) >= 0:
            return numbers
        return super().column(cells)

    def _convert(self, value: Any) -> float:
        text = value
        if isinstance(value, str) and self._decimal == ",":
            text = value.replace(".", "").replace(",", ".")
        try:
            result = float(text)
        except (TypeError, ValueError, OverflowError):
            is_comma = isinstance(value, str) and re.fullmatch(r"-?\d+,\d+", value)
            hint = ": give --decimal ," if is_comma else ""
            raise BadEvent("bad_value", f"{self.field} {value!r} is no number{hint}") from None
        if not 0 <= result <= codec.MAX_VALUE:
            raise BadEvent(
                "bad_value", f"{self.field} {result!r} is not within [0, {codec.MAX_VALUE:g}]"
            )
        return result


def flag(value: Any) -> bool:
    """A truth value from true/false, yes/no, 1/0. Raises BadEvent."""
    if isinstance(value, bool | int | float):
        return bool(value)
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise BadEvent("bad_field", f"available {value!r} is neither true nor false")


def json_text(value: Any) -> str:
    """An object as JSON text; text as it is."""
    if isinstance(value, str):
        return value
    return codec.encode_json(value).decode()
