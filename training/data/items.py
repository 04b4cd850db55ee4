"""Reads a catalogue file.

It holds JSON lines in the format of the topic `items`, or a Parquet or CSV table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from core import codec
from core.errors import BadEvent, DatasetError
from core.types import Item

_TEXTS = ("title", "text")
_LISTS = ("categories", "tags")
_SEPARATOR = "|"


def read(path: Path, item_type: str = "item") -> list[Item]:
    """Read the items at `path`; of two with the same id the later one wins.

    A table has the column item_id and any of item_type, title, categories, tags (lists, or text
    separated by |), text, available, created_at; its other columns become attributes. `item_type`:
    of rows without one. Raises DatasetError naming the row.
    """
    try:
        if path.suffix in (".jsonl", ".ndjson"):
            rows = [line for line in path.read_bytes().splitlines() if line.strip()]
        else:
            table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
            if "item_id" not in table.column_names:
                raise DatasetError(
                    f"{path} has no column item_id; it has {', '.join(table.column_names)}"
                )
            rows = [codec.encode_json(_entry(row, item_type)) for row in table.to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"{path} cannot be read: {error}; give .jsonl, .parquet or .csv"
        ) from None
    items: dict[str, Item] = {}
    for number, row in enumerate(rows, 1):
        try:
            item = codec.decode_item(row)
        except BadEvent as error:
            raise DatasetError(f"{path}, row {number}: {error}") from None
        items[item.item_id] = item
    return list(items.values())


def _entry(row: dict[str, Any], item_type: str) -> dict[str, Any]:
    fields = ("item_id", "item_type", *_TEXTS, *_LISTS, "available", "created_at")
    known = {name: value for name in fields if (value := row.pop(name, None)) is not None}
    entry: dict[str, Any] = {
        "item_type": item_type,
        **known,
        "item_id": str(known.get("item_id", "")),
    }
    for name in _LISTS:
        if isinstance(entry.get(name), str):
            entry[name] = [part.strip() for part in entry[name].split(_SEPARATOR) if part.strip()]
    for name in _TEXTS:
        if name in entry:
            entry[name] = str(entry[name])
    entry["attributes"] = {
        name: value if isinstance(value, str | int | float | bool | list) else str(value)
        for name, value in row.items()
        if value is not None
    }
    return entry
