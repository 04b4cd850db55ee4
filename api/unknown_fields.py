"""Refuses fields that the contract does not have: a misspelt one would be lost without a word."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.contract.unknown_fields import nearest_field, unknown_fields
from core.errors import BadEvent


def refuse_unknown(names: Iterable[str], kind: type[msgspec.Struct]) -> None:
    """Raise BadEvent for the first name that is no field of `kind`; it names the nearest field."""
    for name in unknown_fields(names, kind):
        nearest = nearest_field(name, kind)
        hint = f"did you mean {nearest}? " if nearest else ""
        raise BadEvent(
            "unknown_field",
            f"unknown field {name[:100]!r}; {hint}"
            f"The fields are {', '.join(kind.__struct_fields__)}",
        )
