"""Finds which column of a source holds which field, for mapped columns and for known files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from core.errors import ConfigurationError

Kind = Literal["interactions", "items", "users"]

FIELDS: dict[Kind, tuple[str, ...]] = {
    "interactions": (
        "event_id",
        "user_id",
        "item_id",
        "event_type",
        "timestamp",
        "value",
        "use_case",
        "context",
        "recommendation_id",
    ),
    "items": (
        "item_id",
        "item_type",
        "title",
        "categories",
        "tags",
        "text",
        "available",
        "created_at",
    ),
    "users": ("user_id", "roles", "interests"),
}
ATTRIBUTE = "attributes."
"""Prefix of a mapped attribute: `attributes.year=release_year`."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """How to read a source.

    `columns`: field -> column. `constants`: field -> text for every row. `header`: the column names
    of a file without a header line. `per_second`: units of a numeric timestamp in a second.
    `list_separator`: splits text into categories, tags, roles and interests.
    """

    kind: Kind = "interactions"
    columns: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    header: tuple[str, ...] = ()
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    per_second: float = 1.0
    list_separator: str = "|"


_RATINGS = Format(
    columns={
        "user_id": "userId",
        "item_id": "movieId",
        "value": "rating",
        "timestamp": "timestamp",
    },
    constants={"event_type": "rating"},
)
_MOVIES = Format(
    kind="items",
    columns={"item_id": "movieId", "title": "title", "categories": "genres"},
    constants={"item_type": "movie"},
)
KNOWN: dict[str, Format] = {
    "ratings.csv": _RATINGS,
    "ratings.dat": msgspec.structs.replace(
        _RATINGS, header=("userId", "movieId", "rating", "timestamp"), delimiter="::"
    ),
    "movies.csv": _MOVIES,
    "movies.dat": msgspec.structs.replace(
        _MOVIES, header=("movieId", "title", "genres"), delimiter="::", encoding="latin-1"
    ),
    "users.dat": Format(
        kind="users",
        columns={
            "user_id": "userId",
            "attributes.gender": "gender",
            "attributes.age": "age",
            "attributes.occupation": "occupation",
            "attributes.zip": "zip",
        },
        header=("userId", "gender", "age", "occupation", "zip"),
        delimiter="::",
    ),
}
"""The formats of the MovieLens files, by file name."""

RETAILROCKET = Format(
    columns={
        "user_id": "visitorid",
        "item_id": "itemid",
        "event_type": "event",
        "timestamp": "timestamp",
    },
    per_second=1000.0,
)
"""Recognised by its columns: timestamp, visitorid, event, itemid, transactionid."""


def choose(
    path: Path | None,
    columns: Sequence[str],
    kind: Kind | None,
    mapping: Mapping[str, str],
    constants: Mapping[str, str],
    per_second: float | None,
) -> Format:
    """The format of a source with these columns.

    A known format is changed by `mapping` and `constants`. An unknown source's columns are mapped
    to the fields of the same name. Raises ConfigurationError for a field or column that does not
    exist, and for a required field without a column.
    """
    known = KNOWN.get(path.name) if path is not None else None
    if known is None and {"visitorid", "itemid", "event"} <= set(columns):
        known = RETAILROCKET
    if known is None or (kind is not None and kind != known.kind):
        fields = FIELDS[kind or "interactions"]
        known = Format(
            kind=kind or "interactions",
            columns={field: field for field in fields if field in columns},
        )
    merged = {
        field: column
        for field, column in {**known.columns, **mapping}.items()
        if field not in constants
    }
    format_ = msgspec.structs.replace(
        known,
        columns=merged,
        constants={
            field: text
            for field, text in {**known.constants, **constants}.items()
            if field not in mapping
        },
    )
    if per_second is not None:
        format_ = msgspec.structs.replace(format_, per_second=per_second)
    _check(format_, columns)
    return format_


def parse_pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
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


def _check(format_: Format, columns: Sequence[str]) -> None:
    fields = FIELDS[format_.kind]
    for field in (*format_.columns, *format_.constants):
        is_attribute = field.startswith(ATTRIBUTE) and format_.kind != "interactions"
        if field not in fields and not is_attribute:
            known = ", ".join(fields) + (
                "" if format_.kind == "interactions" else f", {ATTRIBUTE}<name>"
            )
            raise ConfigurationError(f"{field!r} is no field of {format_.kind}; it has {known}")
    for field, column in format_.columns.items():
        if column not in columns:
            raise ConfigurationError(
                f"there is no column {column!r} for {field}; the source has {', '.join(columns)}"
            )
    required = {
        "interactions": ("user_id", "item_id", "event_type"),
        "items": ("item_id", "item_type"),
        "users": ("user_id",),
    }[format_.kind]
    for field in required:
        if field not in format_.columns and field not in format_.constants:
            constant = f" or --constant {field}=<text>" if field.endswith("_type") else ""
            raise ConfigurationError(
                f"{field} is mapped from no column; the source has {', '.join(columns)}: "
                f"give --map {field}=<column>{constant}"
            )
