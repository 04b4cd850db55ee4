"""Checks the options of the import command and turns them into a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import msgspec

from core.errors import ConfigurationError
from streams import times
from streams.importers.command import REJECTS, Plan
from streams.importers.formats import Kind, parse_pairs

_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options as typed on the command line; see the command's --help."""

    file: Path | None = None
    kind: str | None = None
    mapping: Sequence[str] = ()
    constants: Sequence[str] = ()
    database: str | None = None
    table: str | None = None
    min_value: float | None = None
    default_timestamp: str | None = None
    time_unit: str | None = None
    delimiter: str | None = None
    speed: str | None = None
    sort: bool = True
    limit: int | None = None
    rejects: Path = REJECTS


def plan(options: Options) -> Plan:
    """What to import. Raises ConfigurationError naming the option."""
    file, kind, time_unit = options.file, options.kind, options.time_unit
    database, table = options.database, options.table
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
        mapping=parse_pairs(options.mapping, "--map"),
        constants=parse_pairs(options.constants, "--constant"),
        delimiter=options.delimiter,
        min_value=options.min_value,
        sort=options.sort,
        limit=options.limit,
        rejects=options.rejects,
        per_second=None if time_unit is None else _UNITS[time_unit],
        speed=None if options.speed is None else _speed(options.speed),
        default_timestamp=None
        if options.default_timestamp is None
        else times.parse(options.default_timestamp),
    )


def _speed(text: str) -> float:
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise ConfigurationError(f"--speed {text!r} is no multiple such as 100x")
    return speed
