"""The events of a file of any size are sent in the order of their times, in bounded memory."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import SourceFailed
from core.settings import Settings
from streams.importers.command import Import
from streams.importers.convert import Message
from streams.importers.plan import Plan
from streams.importers.sorting import TimeOrder
from tests.streams.importers.world import sent, with_one_partition

ROWS, BATCH, LIMIT = 60_000, 2_000, 1_000_000


def messages(rows: int) -> list[Message]:
    """Of 50 different times, so that many are equal."""
    chance = random.Random(7)
    return [
        (b"u%d" % row, b"%d" % row + b"." * 60, float(chance.randrange(50))) for row in range(rows)
    ]


def test_messages_are_sorted_by_time_then_by_the_file_in_bounded_memory() -> None:
    unsorted, most = messages(ROWS), 0
    before = pa.total_allocated_bytes()
    with TimeOrder(LIMIT) as order:
        for start in range(0, ROWS, BATCH):
            order.add(unsorted[start : start + BATCH])
            most = max(most, pa.total_allocated_bytes() - before)
        assert (order.count, order.runs) == (ROWS, 5)
        in_order: list[Message] = []
        for chunk in order.chunks(3_000):
            assert len(chunk) <= 3_000
            in_order += chunk
            most = max(most, pa.total_allocated_bytes() - before)
    assert in_order == sorted(unsorted, key=lambda message: message[2]), "a stable order"
    assert most < 2 * LIMIT, "the messages are more than five times as large"


def test_an_import_of_more_than_the_limit_sends_the_order_of_time(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    rows = [f"u{row % 7},i{row},view,{1_700_000_000 + row * 37 % 5_000}" for row in range(5_000)]
    path.write_text("\n".join(["user_id,item_id,event_type,timestamp", *rows]) + "\n")
    one = with_one_partition(settings)
    plan = Plan(path=path, sort_bytes=100_000, rejects=tmp_path / "rejects.jsonl")
    assert Import(one, plan).run()["sent"] == len(rows)
    times = [float(event["timestamp"]) for event in sent(one)]
    assert (len(times), times) == (len(rows), sorted(times))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["events.csv"]


def test_no_room_for_the_temporary_files_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with TimeOrder(1) as order, pytest.raises(SourceFailed, match=r"TMPDIR, or .* --no-sort"):
        order.add(messages(3))
