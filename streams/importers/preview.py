"""Shows what an import would read and reject, without Kafka."""

from __future__ import annotations

from itertools import islice

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from store.tables.reader import Reader
from streams.importers.convert import Messages

ROWS = 10_000
"""Rows that are read for a preview."""
_SHOWN = 10


def show(reader: Reader, messages: Messages, console: Console) -> None:
    """Print the mapping, ten rows, and the rejects of the first ROWS rows. Raises SourceFailed."""
    mapping = reader.mapping
    layout = f"known layout: {mapping.layout}" if mapping.layout else "no known layout"
    console.print(f"{escape(reader.table.name)}: {mapping.kind}; {escape(layout)}")
    first: list[bytes] = []
    chunks = messages.chunks(lambda _reject: None)
    while messages.tally.read < ROWS and (chunk := next(chunks, None)) is not None:
        first += [value for _, value, _ in islice(chunk, _SHOWN - len(first))]
        messages.tally.counts["valid"] += len(chunk)
    for note in reader.notes:
        console.print(escape(f"note: {note}"))
    fields = Table("field", "column or constant", title="mapping", title_justify="left")
    for field, column in mapping.columns.items():
        fields.add_row(escape(field), escape(column))
    for field, text in mapping.constants.items():
        fields.add_row(escape(field), escape(f"{text!r} for every row"))
    unused = [name for name in reader.table.columns if name not in mapping.columns.values()]
    fields.add_row("(no field)", escape(", ".join(unused)))
    console.print(fields)
    rows = [msgspec.json.decode(value) for value in first]
    names = list(dict.fromkeys(name for row in rows for name in row))
    parsed = Table(*map(escape, names), title=f"first {len(rows)} rows", title_justify="left")
    for row in rows:
        parsed.add_row(*(escape(str(row.get(name, ""))[:60]) for name in names))
    console.print(parsed)
    console.print(messages.tally.table(f"the first {messages.tally.read:,} rows"))
