"""Decides which column of a table holds which field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from core.errors import ConfigurationError, MissingColumns
from store.tables.layouts import recognise
from store.tables.layouts.layout import Layout
from store.tables.options import ATTRIBUTE, FIELDS, REQUIRED, Kind, Options


class FieldMapping(msgspec.Struct, frozen=True, kw_only=True):
    """How the cells of a table become fields.

    `columns`: field -> column. `constants`: field -> text for every row. `defaults`: field -> text
    for rows whose column has none. `per_second`: units of a
    numeric time in a second, None where nobody said it. `event_types`: the table's word ->
    Eddyline's. `layout`: the public layout it follows.
    """

    kind: Kind = "interactions"
    columns: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    defaults: Mapping[str, str] = {}
    per_second: float | None = None
    time_formats: tuple[str, ...] = ()
    list_separator: str | None = None
    decimal: str = "."
    event_types: Mapping[str, str] = {}
    layout: str | None = None


def choose(columns: Sequence[str], layout: str | None, options: Options) -> FieldMapping:
    """The mapping of a table with these columns.

    `layout`: the public layout of a file without a header. A public layout is changed by the
    options. An unknown table's columns are mapped to the fields of the same name. Raises
    ConfigurationError for a field or column that does not exist, and for a required field without
    a column.
    """
    known = recognise.named(layout) or recognise.of_columns(columns)
    is_own = set(REQUIRED[options.kind or "interactions"]) <= set(columns)
    if known is None or is_own or (options.kind is not None and options.kind != known.kind):
        mapping = _by_name(columns, options.kind or "interactions")
    else:
        mapping = _of_layout(known, columns)
    by_field = {
        field: column
        for field, column in {**mapping.columns, **options.mapping}.items()
        if field not in options.constants
    }
    has_attributes = "attributes" in by_field
    is_open = mapping.kind == "items" and mapping.layout is None and not has_attributes
    if options.others_as_attributes and is_open:
        used = set(by_field.values())
        by_field |= {f"{ATTRIBUTE}{name}": name for name in columns if name and name not in used}
    constants = {
        field: text
        for field, text in {**options.defaults, **mapping.constants}.items()
        if field not in by_field
    }
    result = msgspec.structs.replace(
        mapping,
        columns=by_field,
        constants={**constants, **options.constants},
        defaults=options.defaults,
        per_second=options.per_second or mapping.per_second,
        time_formats=options.time_formats or mapping.time_formats,
        list_separator=options.list_separator or mapping.list_separator,
        decimal=options.decimal,
    )
    _check(result, columns)
    return result


def notes(mapping: FieldMapping, columns: Sequence[str]) -> Iterator[str]:
    """What people should know about the columns of a table of items or users."""
    if mapping.kind == "interactions" or mapping.layout is not None:
        return
    attributes = [name for field, name in mapping.columns.items() if field == f"{ATTRIBUTE}{name}"]
    if attributes:
        yield f"attributes of each row: {', '.join(attributes)}"
    used = set(mapping.columns.values())
    if left_out := [name for name in columns if name and name not in used]:
        name = left_out[0]
        yield (
            f"left out, because they are mapped to no field: {', '.join(left_out)}; "
            f"--map {ATTRIBUTE}{name}={name} makes an attribute of one"
        )


def _by_name(columns: Sequence[str], kind: Kind) -> FieldMapping:
    attributes = () if kind == "interactions" else columns
    return FieldMapping(
        kind=kind,
        columns={
            **{field: field for field in FIELDS[kind] if field in columns},
            **{name: name for name in attributes if name.startswith(ATTRIBUTE)},
        },
    )


def _of_layout(layout: Layout, columns: Sequence[str]) -> FieldMapping:
    return FieldMapping(
        kind=layout.kind,
        columns={field: name for field, name in layout.columns.items() if name in columns},
        constants=layout.constants,
        per_second=layout.per_second,
        time_formats=layout.time_formats,
        list_separator=layout.list_separator,
        event_types=layout.event_types,
        layout=layout.name,
    )


def _check(mapping: FieldMapping, columns: Sequence[str]) -> None:
    kind, fields = mapping.kind, FIELDS[mapping.kind]
    for field in (*mapping.columns, *mapping.constants):
        is_attribute = field.startswith(ATTRIBUTE) and kind != "interactions"
        if field not in fields and not is_attribute:
            known = ", ".join(fields) + ("" if kind == "interactions" else f", {ATTRIBUTE}<name>")
            raise ConfigurationError(f"{field!r} is no field of {kind}; it has {known}")
    for field, column in mapping.columns.items():
        if column not in columns:
            raise ConfigurationError(
                f"there is no column {column!r} for {field}; the source has {', '.join(columns)}"
            )
        if columns.count(column) > 1:
            raise ConfigurationError(
                f"{columns.count(column)} columns have the name {column!r}, so that {field} could "
                f"be any of them; the source has {', '.join(columns)}: rename one"
            )
    missing = [
        field
        for field in REQUIRED[kind]
        if field not in mapping.columns and field not in mapping.constants
    ]
    if missing:
        field = missing[0]
        constant = f" or --constant {field}=<text>" if field.endswith("_type") else ""
        raise MissingColumns(
            missing,
            columns,
            f"{field} is mapped from no column; the source has {', '.join(columns)}: "
            f"give --map {field}=<column>{constant}",
        )
