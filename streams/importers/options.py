"""Checks the options of the import command and turns them into a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import msgspec

from core.errors import ConfigurationError
from store.tables import options as tables
from store.tables.mapping import parse_pairs
from store.tables.options import Kind
from store.tables.times import UNITS
from streams import times
from streams.importers.plan import REJECTS, Plan


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options as typed on the command line; see the command's --help."""

    file: str | Path | None = None
    kind: str | None = None
    mapping: Sequence[str] = ()
    constants: Sequence[str] = ()
    database: str | None = None
    table: str | None = None
    min_value: float | None = None
    default_timestamp: str | None = None
    time_unit: str | None = None
    time_format: Sequence[str] = ()
    decimal: str = "."
    list_separator: str | None = None
    only_mapped: bool = False
    encoding: str | None = None
    header: str | None = None
    delimiter: str | None = None
    speed: str | None = None
    sort: bool = True
    limit: int | None = None
    rejects: Path = REJECTS
    max_rejects: str = "1%"
    resume: bool = False


def plan(options: Options) -> Plan:
    """What to import. Raises ConfigurationError naming the option."""
    file, kind, time_unit = options.file, options.kind, options.time_unit
    database, table = options.database, options.table
    if (file is None) == (database is None) or (database is None) != (table is None):
        raise ConfigurationError("give either a file, or --database and --table")
    if kind is not None and kind not in get_args(Kind):
        raise ConfigurationError(f"--kind {kind!r} is none of {', '.join(get_args(Kind))}")
    if time_unit is not None and time_unit not in UNITS:
        raise ConfigurationError(f"--time-unit {time_unit!r} is none of {', '.join(UNITS)}")
    if options.decimal not in (".", ","):
        raise ConfigurationError(f"--decimal {options.decimal!r} is neither . nor ,")
    if options.resume and database is not None:
        raise ConfigurationError(
            "--resume needs a file: a table has no order of rows that stays; import it again, the "
            "event ids are the same"
        )
    return Plan(
        path=file,
        database=database,
        table=table,
        reading=tables.Options(
            kind=cast("Kind | None", kind),
            mapping=parse_pairs(options.mapping, "--map"),
            constants=parse_pairs(options.constants, "--constant"),
            encoding=options.encoding,
            delimiter=options.delimiter,
            header=_names(options.header),
            per_second=None if time_unit is None else UNITS[time_unit],
            time_formats=tuple(options.time_format),
            decimal=options.decimal,
            list_separator=options.list_separator,
            others_as_attributes=database is None and not options.only_mapped,
        ),
        min_value=options.min_value,
        sort=options.sort,
        limit=options.limit,
        rejects=options.rejects,
        max_rejects=_share(options.max_rejects),
        resume=options.resume,
        speed=None if options.speed is None else _speed(options.speed),
        default_timestamp=None
        if options.default_timestamp is None
        else times.parse(options.default_timestamp),
    )


def _names(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(name.strip() for name in text.split(","))


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigurationError(f"--max-rejects {text!r} is no share such as 1% or 0.01")
    return share


def _speed(text: str) -> float:
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e9:
        raise ConfigurationError(f"--speed {text!r} is no multiple such as 100x")
    return speed
