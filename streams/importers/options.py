"""Checks the options of the import command and turns them into a plan."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.errors import ConfigurationError
from store.tables import options as tables
from streams import times
from streams.importers.plan import REJECTS, Plan


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options as typed on the command line; see the command's --help."""

    file: str | Path | None = None
    reading: tables.Options = tables.Options()
    database: str | None = None
    table: str | None = None
    min_value: float | None = None
    default_timestamp: str | None = None
    speed: str | None = None
    sort: bool = True
    limit: int | None = None
    rejects: Path = REJECTS
    max_rejects: str = "1%"
    resume: bool = False


def plan(options: Options) -> Plan:
    """What to import. Raises ConfigurationError naming the option."""
    file, database, table = options.file, options.database, options.table
    if (file is None) == (database is None) or (database is None) != (table is None):
        raise ConfigurationError("give either a file, or --database and --table")
    if options.resume and database is not None:
        raise ConfigurationError(
            "--resume needs a file: a table has no order of rows that stays; import it again, the "
            "event ids are the same"
        )
    return Plan(
        path=file,
        database=database,
        table=table,
        # a table of a database has many columns that are no attributes
        reading=msgspec.structs.replace(
            options.reading,
            others_as_attributes=options.reading.others_as_attributes and database is None,
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
