"""Names the fields of a message that the contract does not have, and the known one meant most
likely.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import msgspec


def unknown_fields(names: Iterable[str], kind: type[msgspec.Struct]) -> list[str]:
    """Those of `names` that are no field of `kind`."""
    known = kind.__struct_fields__
    return [name for name in names if name not in known]


def nearest_field(name: str, kind: type[msgspec.Struct]) -> str | None:
    """The field of `kind` whose name is like `name`; None where none is."""
    nearest = difflib.get_close_matches(name[:100].lower(), kind.__struct_fields__, n=1, cutoff=0.5)
    return nearest[0] if nearest else None
