"""What people have is read as it is meant, and in the same way by all three readers.

`streams import`, `training --events` and `--items` give the same valid rows, and the same rejects.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core import codec
from core.errors import DatasetError
from core.settings import Settings
from store.tables.options import Options
from store.tables.rows import Reject
from streams.importers.command import open_reader
from streams.importers.convert import Messages
from streams.importers.plan import Plan
from tests.tables.examples import EXPECTED, OPTIONS, write
from training.data import events, items

EVENTS = [name for name, example in EXPECTED.items() if example["kind"] == "interactions"]
ITEMS = [name for name, example in EXPECTED.items() if example["kind"] == "items"]


def test_there_are_forty_examples() -> None:
    assert len(EXPECTED) >= 40


@pytest.mark.parametrize("name", EXPECTED)
def test_an_import_gives_the_expected_rows_and_rejects(name: str, tmp_path: Path) -> None:
    example = EXPECTED[name]
    # without a time of their own the events of some data sets have that of the option
    plan = Plan(
        path=write(name, tmp_path), reading=OPTIONS.get(name, Options()), default_timestamp=0.0
    )
    reader = open_reader(plan)
    messages, rejects = Messages(Settings(), plan, reader, time.time()), list[Reject]()
    values = [value for chunk in messages.chunks(rejects.append) for _, value, _ in chunk]
    assert (reader.mapping.kind, reader.mapping.layout) == (example["kind"], example["layout"])
    assert [_essential(value, example["kind"]) for value in values] == example["rows"]
    assert [[reject.number, reject.code] for reject in rejects] == example["rejects"]
    assert dict(reader.missing) == example["missing"]
    assert messages.tally.read == len(values) + len(rejects)


@pytest.mark.parametrize("name", [name for name in EVENTS if name not in OPTIONS])
def test_training_reads_the_same_events(name: str, tmp_path: Path) -> None:
    table, skipped = events.from_file(write(name, tmp_path))
    rows = [
        [row["user_id"], row["item_id"], row["event_type"], row["timestamp"] or 0.0, row["value"]]
        for row in table.to_pylist()
    ]
    by_time = sorted(EXPECTED[name]["rows"], key=lambda row: row[3])
    assert rows == by_time
    assert skipped == Counter(code for _, code in EXPECTED[name]["rejects"])


@pytest.mark.parametrize("name", ITEMS)
def test_training_reads_the_same_items(name: str, tmp_path: Path) -> None:
    example, path = EXPECTED[name], write(name, tmp_path)
    if example["rejects"]:
        first_row, _ = example["rejects"][0]
        with pytest.raises(DatasetError, match=rf"rows are no items; the first is row {first_row}"):
            items.read(path)
    else:
        assert items.read(path) == [
            codec.decode_item(codec.encode_json(row), time.time()) for row in example["rows"]
        ]


def _essential(value: bytes, kind: str) -> Any:
    row = msgspec.json.decode(value)
    if kind != "interactions":
        return row
    names = ("user_id", "item_id", "event_type", "timestamp", "value")
    return [row.get(name) for name in names]
