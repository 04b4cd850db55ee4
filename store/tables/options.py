"""How a table is to be read, as far as it is said and not guessed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from core.redaction import masked_url

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
        "attributes",
        "available",
        "created_at",
    ),
    "users": ("user_id", "roles", "interests", "attributes"),
}
REQUIRED: dict[Kind, tuple[str, ...]] = {
    "interactions": ("user_id", "item_id", "event_type"),
    "items": ("item_id", "item_type"),
    "users": ("user_id",),
}
ATTRIBUTE = "attributes."
"""Prefix of a mapped attribute: `attributes.year=release_year`."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about a table; None: it is guessed from the content.

    `mapping`: field -> column. `constants`: field -> text for every row. `defaults`: field -> text
    for rows that have none. `header`: the names of the columns of a file that does not name them.
    `per_second`: units of a numeric time in a second. `time_formats`: how times are written
    (strptime). `decimal`: "." or ",". `others_as_attributes`: columns of items that are no field
    become attributes, unless a column `attributes` holds them. `prefix`: of the names that these
    options have on the command line, in errors.
    """

    kind: Kind | None = None
    mapping: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    defaults: Mapping[str, str] = {}
    encoding: str | None = None
    delimiter: str | None = None
    header: tuple[str, ...] = ()
    per_second: float | None = None
    time_formats: tuple[str, ...] = ()
    decimal: str = "."
    list_separator: str | None = None
    others_as_attributes: bool = False
    prefix: str = ""


class TableFile(msgspec.Struct, frozen=True):
    """A file, a folder or s3://bucket/key, and how it is to be read; printed without secrets."""

    path: str | Path
    reading: Options = Options()

    def __str__(self) -> str:
        return masked_url(str(self.path))
