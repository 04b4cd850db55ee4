"""Refuses fields that the contract does not have: a misspelt one would be lost without a word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import msgspec

from core.errors import BadEvent


def refuse_unknown(names: Iterable[str], kind: type[msgspec.Struct]) -> None:
    """Raise BadEvent for the first name that is no field of `kind`; it names the nearest field."""
    known = kind.__struct_fields__
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise BadEvent(
                "unknown_field",
                f"unknown field {name[:100]!r}; {hint}The fields are {', '.join(known)}",
            )
