"""Reads a catalogue file, in any form that `streams import` reads."""

from __future__ import annotations

from collections import Counter

from core.errors import DatasetError
from core.redaction import masked_url
from core.types import Item
from store.tables import reader
from store.tables.rows import Reject
from training.data import table_files
from training.data.table_files import Source

MOST_REJECTED = 0.01
"""Share of rejected rows above which a file is no catalogue."""


def read(source: Source, item_type: str = "item") -> list[Item]:
    """Read the items of `source`; of two with the same id the later one wins.

    A table has the column item_id and any of item_type, title, categories, tags (lists, or text
    separated by | or a comma), text, attributes, available, created_at; its other columns become
    attributes. Or it follows a public layout. `item_type`: of a file that names none. Raises
    DatasetError, which names the first row that is wrong where more than one in a hundred are.
    """
    items: dict[str, Item] = {}
    rejects: list[Reject] = []
    read = 0
    for batch in table_files.valid_rows(source, "items", Counter(), item_type):
        read += batch.read
        rejects += batch.rejects
        for item in reader.items(batch):
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                items[item.item_id] = item
    if len(rejects) > MOST_REJECTED * read:
        first = min(rejects, key=lambda reject: reject.number)
        raise DatasetError(
            f"{masked_url(str(source))}: {len(rejects)} of {read} rows are no items; the first is "
            f"row {first.number}: {first.reason}"
        )
    return list(items.values())
