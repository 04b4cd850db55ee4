"""Declares the options that say how a table is to be read, for every command that reads one.

`streams import` and the commands of `training` take them from here; nothing here is slow to import.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, NamedTuple, cast, get_args, get_type_hints

import typer

from core.errors import ConfigurationError
from store.tables.options import Kind, Options
from store.tables.times import UNITS

Command = Callable[..., None]


@dataclass(frozen=True)
class Typed:
    """The options as typed. An option has the name of its field; its help says what it means."""

    kind: Annotated[
        str | None,
        typer.Option(
            help=(
                "interactions, items or users (default: the kind of a known file, else "
                "interactions)."
            ),
        ),
    ] = None
    map: Annotated[
        list[str] | None, typer.Option(help="field=column,...: the column of each field.")
    ] = None
    constant: Annotated[
        list[str] | None,
        typer.Option(help="field=text,...: the same for every row, such as event_type=view."),
    ] = None
    time_unit: Annotated[
        str | None, typer.Option(help="s, ms, us or ns: the unit of numeric times (default: s).")
    ] = None
    time_format: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "How times are written, such as '%m/%d/%Y %H:%M' (default: ISO 8601 or a number). "
                "Days without a time are refused unless %Y-%m-%d or the like says they count."
            )
        ),
    ] = None
    decimal: Annotated[
        str, typer.Option(help="Character before the decimals of a number: . or a comma.")
    ] = "."
    list_separator: Annotated[
        str | None,
        typer.Option(help="Character between the parts of a list (default: |, or else a comma)."),
    ] = None
    only_mapped: Annotated[
        bool,
        typer.Option(
            help="Leave out columns of items that are no field (default: they become attributes)."
        ),
    ] = False
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of a text file (default: found by its content).")
    ] = None
    header: Annotated[
        str | None,
        typer.Option(help="Names of the columns, separated by commas, of a file without a header."),
    ] = None
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="What stands between the cells of a text file (default: found by its content)."
        ),
    ] = None


_OF_ITEMS = {"list_separator", "only_mapped"}
"""Options that say nothing about events."""
_NAMES = "|".join(field.name.replace("_", "-") for field in fields(Typed))


class Reading(NamedTuple):
    """The options of one file of a command.

    `file`: what the help calls the file. `kind`: what it holds; None: the user says it. `prefix`:
    of the options' names, where a command reads two files, such as `items-`.
    """

    file: str
    kind: Kind | None = None
    prefix: str = ""


def with_reading_options(**readings: Reading) -> Callable[[Command], Command]:
    """Give a command the options of its files: it is called with an `Options` by each of the names.

    The command raises ConfigurationError, which names the option.
    """

    def decorate(command: Command) -> Command:
        added = [
            parameter
            for name, reading in readings.items()
            for parameter in _parameters(name, reading)
        ]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            for name, reading in readings.items():
                texts = {
                    field.name: values.pop(f"{name}_{field.name}")
                    for field in fields(Typed)
                    if f"{name}_{field.name}" in values
                }
                values[name] = options(Typed(**texts), reading)
            command(**values)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [parameter for parameter in own if parameter.name not in readings] + added
        signature = inspect.Signature(
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        run.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it
        return run

    return decorate


def options(typed: Typed, reading: Reading) -> Options:
    """What the typed options say. Raises ConfigurationError naming the option."""
    flag = f"--{reading.prefix}"
    if typed.kind is not None and typed.kind not in get_args(Kind):
        raise ConfigurationError(
            f"{flag}kind {typed.kind!r} is none of {', '.join(get_args(Kind))}"
        )
    if typed.time_unit is not None and typed.time_unit not in UNITS:
        raise ConfigurationError(
            f"{flag}time-unit {typed.time_unit!r} is none of {', '.join(UNITS)}"
        )
    if typed.decimal not in (".", ","):
        raise ConfigurationError(f"{flag}decimal {typed.decimal!r} is neither . nor ,")
    return Options(
        kind=reading.kind or cast("Kind | None", typed.kind),
        mapping=_pairs(typed.map or (), f"{flag}map"),
        constants=_pairs(typed.constant or (), f"{flag}constant"),
        encoding=typed.encoding,
        delimiter=typed.delimiter,
        header=tuple(name.strip() for name in typed.header.split(",")) if typed.header else (),
        per_second=UNITS[typed.time_unit] if typed.time_unit else None,
        time_formats=tuple(typed.time_format or ()),
        decimal=typed.decimal,
        list_separator=typed.list_separator,
        others_as_attributes=not typed.only_mapped,
        prefix=reading.prefix,
    )


def with_prefix(text: str, prefix: str) -> str:
    """An error or a note, with the options named as a command with this prefix names them."""
    return re.sub(rf"--({_NAMES})\b", rf"--{prefix}\1", text) if prefix else text


def _parameters(name: str, reading: Reading) -> list[inspect.Parameter]:
    hints = get_type_hints(Typed, include_extras=True)
    parameters = []
    for field in fields(Typed):
        is_known = field.name == "kind" and reading.kind is not None
        if is_known or (reading.kind == "interactions" and field.name in _OF_ITEMS):
            continue
        type_, declared = get_args(hints[field.name])
        option = typer.Option(
            f"--{reading.prefix}{field.name.replace('_', '-')}",
            help=declared.help,
            rich_help_panel=f"How {reading.file} is read",
        )
        parameters.append(
            inspect.Parameter(
                f"{name}_{field.name}",
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[type_, option],
            )
        )
    return parameters


def _pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """`["user_id=uid,item_id=iid"]` as a mapping. Raises ConfigurationError."""
    pairs: dict[str, str] = {}
    for text in texts:
        for pair in text.split(","):
            field, equals, value = pair.partition("=")
            if not equals or not field.strip() or not value.strip():
                raise ConfigurationError(
                    f"{flag} {pair!r} is not of the form field=value; several are separated "
                    f"by commas"
                )
            pairs[field.strip()] = value.strip()
    return pairs
