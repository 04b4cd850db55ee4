"""The bookshop of docs/your-own-domain.md as a world of `python -m benchmarks.routed`."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from benchmarks.ranking.headline_worlds import World
from core.types import Item
from demo import books

NAME = "books"
SHOP = books.Shop(readers=3_000, books=1_200, seed=7, end=datetime(2026, 11, 1, tzinfo=UTC))
USE_CASES = """
[event_types]
view = 1.0
wish = 3.0
buy = 6.0
review = 1.0

[use_cases.reader_books]
role = "reader"
item_type = "book"
path = "books/for-reader"
"""


def world(folder: Path) -> World:
    """The shop's events and books; its files are written into `folder`."""
    books.write(SHOP, folder)
    events, entries = _rows(folder / "events.csv"), _rows(folder / "books.csv")
    table = pa.table(
        {
            "user_id": [row["reader"] for row in events],
            "item_id": [row["isbn"] for row in events],
            "event_type": [row["action"] for row in events],
            "value": [float(row["stars"]) if row["stars"] else None for row in events],
            "timestamp": [_seconds(row["time"]) for row in events],
        }
    )
    items = [
        Item(
            item_id=row["isbn"],
            item_type="book",
            title=row["title"],
            categories=row["genres"].split("/"),
            text=row["about"],
            created_at=_seconds(row["published"]),
        )
        for row in entries
    ]
    return World(NAME, table, items, {})


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
