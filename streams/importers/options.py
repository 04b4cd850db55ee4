"""The import command's words, checked and turned into a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from core.errors import ConfigurationError
from streams import times
from streams.importers.command import Plan
from streams.importers.formats import Kind, parse_pairs

_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}


def plan(
    *,
    file: Path | None,
    kind: str | None,
    mapping: Sequence[str] | None,
    constants: Sequence[str] | None,
    database: str | None,
    table: str | None,
    min_value: float | None,
    default_timestamp: str | None,
    time_unit: str | None,
    delimiter: str | None,
    speed: str | None,
    sort: bool,
    limit: int | None,
    rejects: Path,
) -> Plan:
    """Raises ConfigurationError naming the option."""
    if (file is None) == (database is None) or (database is None) != (table is None):
        raise ConfigurationError("give either a file, or --database and --table")
    if kind is not None and kind not in get_args(Kind):
        raise ConfigurationError(f"--kind {kind!r} is none of {', '.join(get_args(Kind))}")
    if time_unit is not None and time_unit not in _UNITS:
        raise ConfigurationError(f"--time-unit {time_unit!r} is none of {', '.join(_UNITS)}")
    return Plan(
        path=file,
        database=database,
        table=table,
        kind=cast("Kind | None", kind),
        mapping=parse_pairs(mapping or [], "--map"),
        constants=parse_pairs(constants or [], "--constant"),
        delimiter=delimiter,
        min_value=min_value,
        sort=sort,
        limit=limit,
        rejects=rejects,
        per_second=None if time_unit is None else _UNITS[time_unit],
        speed=None if speed is None else _speed(speed),
        default_timestamp=None if default_timestamp is None else times.parse(default_timestamp),
    )


def _speed(text: str) -> float:
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise ConfigurationError(f"--speed {text!r} is no multiple such as 100x")
    return speed
