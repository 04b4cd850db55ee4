"""`streams import --database`: the rows of a backend's own table become events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from core.errors import ConfigurationError
from core.settings import Settings
from store.tables.options import Options
from streams.importers.command import Import
from streams.importers.database import Table
from streams.importers.plan import Plan
from tests.streams.importers.world import sent, with_one_partition


def test_a_second_import_of_a_table_sends_the_same_event_ids(
    broker: object, settings: Settings, database: str
) -> None:
    one = with_one_partition(settings)
    plan = Plan(
        database=database,
        table="user_interactions",
        reading=Options(mapping={"event_type": "kind", "timestamp": "created_at"}),
    )
    assert Import(one, plan).run() == {"sent": 3000}
    events = sent(one)
    assert events[0]["timestamp"] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert [event["timestamp"] for event in events] == sorted(
        event["timestamp"] for event in events
    )
    assert len({event["event_id"] for event in events}) == 3000
    Import(one, plan).run()
    again = sent(one)[3000:]
    assert {event["event_id"] for event in again} == {event["event_id"] for event in events}
    mapped = Options(mapping={**plan.reading.mapping, "event_id": "id"})
    Import(one, msgspec.structs.replace(plan, reading=mapped)).run()
    assert [event["event_id"] for event in sent(one)[6000:6003]] == ["0", "1", "2"]


def test_a_mistyped_path_of_sqlite_is_refused_and_creates_no_file(tmp_path: Path) -> None:
    mistyped = tmp_path / "shpo.db"
    with pytest.raises(ConfigurationError, match=f"names no file: {mistyped}"):
        Table(f"sqlite:///{mistyped}", "orders")
    assert not list(tmp_path.iterdir())
