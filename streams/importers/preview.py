"""Shows what an import would read and reject, without Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from core.process.tables import Column, Table
from store.tables.reader import Reader
from streams.importers.convert import Messages

ROWS = 10_000
"""Rows that are read for a preview."""
_SHOWN = 10
_IMPORTANT = ("user_id", "item_id", "event_type", "timestamp", "title")
_TEXTS = ("title", "text", "categories", "tags", "roles", "interests", "attributes", "context")
"""Fields whose texts may be longer than a line."""


def read(messages: Messages) -> list[dict[str, Any]]:
    """Read the first ROWS rows, count them in `messages.tally`, and return the first messages.

    Raises SourceFailed.
    """
    first: list[bytes] = []
    chunks = messages.chunks(lambda _reject: None)
    while messages.tally.read < ROWS and (chunk := next(chunks, None)) is not None:
        first += [value for _, value, _ in islice(chunk, _SHOWN - len(first))]
        messages.tally.counts["valid"] += len(chunk)
    return [msgspec.json.decode(value) for value in first]


def facts(reader: Reader, messages: Messages) -> dict[str, Any]:
    """The preview for programs. Raises SourceFailed."""
    rows = read(messages)
    return {
        "source": reader.table.name,
        "kind": reader.mapping.kind,
        "layout": reader.mapping.layout,
        "notes": list(reader.notes),
        "columns": dict(reader.mapping.columns),
        "constants": dict(reader.mapping.constants),
        "first_rows": rows,
        "rows": messages.tally.facts(),
    }


def show(reader: Reader, messages: Messages, console: Console) -> None:
    """Print the mapping, ten rows, and the rejects of the first ROWS rows. Raises SourceFailed."""
    mapping = reader.mapping
    layout = f"known layout: {mapping.layout}" if mapping.layout else "no known layout"
    console.print(Text(f"{reader.table.name}: {mapping.kind}; {layout}"), soft_wrap=True)
    rows = read(messages)
    for note in reader.notes:
        console.print(Text(f"note: {note}"))
    console.print()
    fields = Table(Column("field"), Column("column or constant", wraps=True), title="mapping")
    for field, column in mapping.columns.items():
        fields.add(field, column)
    for field, text in mapping.constants.items():
        fields.add(field, f"{text!r} for every row")
    unused = [name for name in reader.table.columns if name not in mapping.columns.values()]
    fields.add("(no field)", ", ".join(unused))
    fields.show(console)
    console.print()
    _show_rows(rows, console)
    console.print()
    messages.tally.table(f"the first {messages.tally.read:,} rows").show(console)


def _show_rows(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    if not rows:
        console.print("no row would be sent")
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    parsed = Table(
        *(Column(name, 0 if name in _IMPORTANT else 1, wraps=name in _TEXTS) for name in names),
        title=f"the first {len(rows)} that would be sent",
    )
    for row in rows:
        parsed.add(*(row.get(name, "") for name in names))
    parsed.show(console)
