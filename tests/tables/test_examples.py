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
from store.tables import command_line
from store.tables.command_line import Reading, Typed
from store.tables.options import Options as TableOptions
from store.tables.options import TableFile
from store.tables.rows import Reject
from streams.importers.command import open_reader
from streams.importers.convert import Messages
from streams.importers.options import Options, plan
from tests.tables.examples import EXPECTED, OPTIONS, write
from training.command_options import EVENTS_READING, ITEM_CONTENT_READING, ITEMS_READING
from training.data import events, items

IMPORT = Reading("the file")
EVENTS = [name for name, example in EXPECTED.items() if example["kind"] == "interactions"]
ITEMS = [name for name, example in EXPECTED.items() if example["kind"] == "items"]


def test_there_are_forty_examples() -> None:
    assert len(EXPECTED) >= 40


@pytest.mark.parametrize("name", EXPECTED)
def test_an_import_gives_the_expected_rows_and_rejects(name: str, tmp_path: Path) -> None:
    example = EXPECTED[name]
    # without a time of their own the events of some data sets have that of the option
    options = Options(
        file=write(name, tmp_path), reading=_options(name, IMPORT), default_timestamp="0"
    )
    reader = open_reader(plan(options))
    messages, rejects = Messages(Settings(), plan(options), reader, time.time()), list[Reject]()
    values = [value for chunk in messages.chunks(rejects.append) for _, value, _ in chunk]
    assert (reader.mapping.kind, reader.mapping.layout) == (example["kind"], example["layout"])
    assert [_essential(value, example["kind"]) for value in values] == example["rows"]
    assert [[reject.number, reject.code] for reject in rejects] == example["rejects"]
    assert dict(reader.missing) == example["missing"]
    duplicates = messages.tally.counts["duplicates"]
    assert duplicates == example.get("duplicates", 0)
    assert messages.tally.read == len(values) + len(rejects) + duplicates


@pytest.mark.parametrize("name", EVENTS)
def test_training_reads_the_same_events(name: str, tmp_path: Path) -> None:
    file = TableFile(write(name, tmp_path), _options(name, EVENTS_READING))
    table, skipped = events.from_file(file)
    rows = [
        [row["user_id"], row["item_id"], row["event_type"], row["timestamp"] or 0.0, row["value"]]
        for row in table.to_pylist()
    ]
    by_time = sorted(EXPECTED[name]["rows"], key=lambda row: row[3])
    assert rows == by_time
    duplicates = EXPECTED[name].get("duplicates", 0)
    assert skipped == Counter(
        [*(code for _, code in EXPECTED[name]["rejects"]), *["duplicates"] * duplicates]
    )


@pytest.mark.parametrize("reading", [ITEM_CONTENT_READING, ITEMS_READING], ids=["alone", "beside"])
@pytest.mark.parametrize("name", ITEMS)
def test_training_reads_the_same_items(
    name: str, reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone in a command, or beside the events, where the names of the options have a prefix."""
    example, file = EXPECTED[name], TableFile(write(name, tmp_path), _options(name, reading))
    if example["rejects"]:
        first_row, _ = example["rejects"][0]
        with pytest.raises(DatasetError, match=rf"rows are no items; the first is row {first_row}"):
            items.read(file)
        monkeypatch.setattr(items, "MOST_REJECTED", 1.0)
    # training takes items without a type, too, which an import rejects
    assert [item for item in items.read(file) if item.item_type != "item"] == [
        codec.decode_item(codec.encode_json(row), time.time()) for row in example["rows"]
    ]


def _options(name: str, reading: Reading) -> TableOptions:
    return command_line.options(OPTIONS.get(name, Typed()), reading)


def _essential(value: bytes, kind: str) -> Any:
    row = msgspec.json.decode(value)
    if kind != "interactions":
        return row
    names = ("user_id", "item_id", "event_type", "timestamp", "value")
    return [row.get(name) for name in names]
