"""Prints the views of `streams inspect` as tables or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from core.codec import encode_json
from core.process import tables
from core.process.tables import Column, Table


def show(
    view: Mapping[str, Any] | Sequence[Mapping[str, Any]], as_json: bool, wide: bool = False
) -> None:
    """Print what a function of `views` returns, as tables, or as JSON for programs."""
    if as_json:
        tables.print_json(view)
        return
    console = tables.console(wide)
    if not isinstance(view, Mapping):
        _rows(view).show(console)
        return
    fields = {name: value for name, value in view.items() if name not in _TABLES}
    tables.show_fields({name: _plain(name, value) for name, value in fields.items()}, console)
    for name, table in _TABLES.items():
        if name in view:
            console.print()
            table(view[name]).show(console)


_PRIORITIES = {"log_begins": 4, "archive": 3, "log_ends": 2, "archive_lag": 1}
"""Columns that a narrow terminal may do without."""


def _rows(view: Sequence[Mapping[str, Any]]) -> Table:
    first = view[0] if view else {"nothing": ""}
    table = Table(
        *(
            Column(name, _PRIORITIES.get(name, 0), number=not isinstance(value, str))
            for name, value in first.items()
        )
    )
    for row in view:
        table.add(*row.values())
    return table


def _history(events: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        Column("when"),
        Column("event"),
        Column("item"),
        Column("value", 1, number=True),
        title=f"history, newest first ({len(events)} events)",
    )
    for event in reversed(events):
        value = event["value"]
        table.add(
            _plain("first_seen", event["timestamp"]),
            event["event_type"],
            event["item_id"],
            "" if value is None else f"{value:g}",
        )
    return table


def _plain(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("first_seen", "deleted_at"):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return encode_json(value).decode()


_TABLES = {"history": _history, "kinds": _rows, "servers": _rows}
"""The fields of a view that are tables."""
