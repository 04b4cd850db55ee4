"""`streams archive` writes every offset of the log to the archive once.

This holds while processes are killed, paused and added.
"""

from __future__ import annotations

import signal

import pytest

from core.codec import encode_json
from core.settings import Settings
from core.types import Interaction
from store.archive.archive import Archive
from store.log import client as log
from store.log.producer import Producer
from streams.archiver.archiver import Archiver
from tests.conftest import Spawn
from tests.streams.archiver.world import assert_every_offset_once, publish
from tests.support import eventually


@pytest.mark.process
def test_every_message_becomes_a_row_valid_or_not(broker: object, settings: Settings) -> None:
    log.ensure_topics(settings)
    good = Interaction(
        "e1",
        "u1",
        "i1",
        "rating",
        1_700_000_000.5,
        value=4.0,
        use_case="developer_startup",
        recommendation_id="r1",
    )
    with Producer(settings) as producer:
        producer.interaction(good)
        producer.raw(
            settings.interactions_topic,
            b"u1",
            encode_json(good)[:-1] + b', "context": {"page": 3}}',
        )
        producer.raw(settings.interactions_topic, b"u1", b"not JSON")
        producer.raw(settings.interactions_topic, b"u1", b"x" * 100_000)
        producer.raw(settings.interactions_topic, b"u1", None)
        producer.raw(
            settings.interactions_topic,
            b"u1",
            encode_json(good)[:-1] + b', "context": {"note": "\xff"}}',
        )
    assert Archiver(settings).run(until_idle=True) == 6
    rows = [
        row
        for table in Archive(settings.archive_url).read(settings.interactions_topic)
        for row in table.to_pylist()
    ]
    sent = {
        "event_id": "e1",
        "user_id": "u1",
        "item_id": "i1",
        "event_type": "rating",
        "timestamp": 1_700_000_000.5,
        "value": 4.0,
        "use_case": "developer_startup",
        "recommendation_id": "r1",
    }
    assert {name: rows[0][name] for name in sent} == sent
    assert rows[0]["broker_time"] > 1.7e9
    assert rows[1]["context"] == '{"page": 3}'
    assert rows[5]["context"] == '{"note": "\ufffd"}'
    assert [row["error"] and row["error"].split(":")[0] for row in rows] == [
        None,
        None,
        "not_json",
        "too_large",
        "empty",
        None,
    ]
    assert [row["raw"] if row["raw"] is None else len(row["raw"]) for row in rows] == [
        None,
        None,
        8,
        4096,
        0,
        None,
    ]
    assert [row["raw_truncated"] for row in rows] == [None, None, False, True, False, None]


@pytest.mark.process
def test_a_second_run_continues_where_the_files_end(broker: object, settings: Settings) -> None:
    log.ensure_topics(settings)
    small = settings.model_copy(update={"archive_file_events": 100})
    publish(settings, 1000)
    assert Archiver(small).run(until_idle=True) == 1000
    ranges = Archive(settings.archive_url).ranges(settings.interactions_topic)
    assert max(file.next - file.first for files in ranges.values() for file in files) == 100
    assert Archiver(small).run(until_idle=True) == 0
    publish(settings, 500, start=1000)
    assert Archiver(small).run(until_idle=True) == 500
    assert_every_offset_once(settings)


@pytest.mark.process
def test_the_successor_of_a_killed_process_archives_every_offset_once(
    broker: object, settings: Settings, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    quick = {
        "ARCHIVE_FILE_EVENTS": "150",
        "ARCHIVE_FILE_S": "0.5",
        "SESSION_TIMEOUT_S": "6",
        "POLL_EVENTS": "50",
    }
    archive = Archive(settings.archive_url)
    publish(settings, 4000)
    first = spawn("streams", "archive", **quick)
    eventually(
        lambda: sum(archive.positions(settings.interactions_topic).values()) > 200,
        "the first process archives",
    )
    first.kill()
    spawn("streams", "archive", **quick)
    publish(settings, 1000, start=4000)
    eventually(
        lambda: sum(archive.positions(settings.interactions_topic).values()) == 5000,
        "the second process takes over",
        timeout=60,
    )
    assert_every_offset_once(settings)


@pytest.mark.apache
def test_every_offset_is_archived_once_while_processes_are_killed_paused_and_added(
    broker: object, settings: Settings, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    quick = {
        "ARCHIVE_FILE_EVENTS": "150",
        "ARCHIVE_FILE_S": "0.5",
        "SESSION_TIMEOUT_S": "6",
        "POLL_EVENTS": "50",
    }
    archive = Archive(settings.archive_url)

    def rows() -> int:
        return sum(archive.positions(settings.interactions_topic).values())

    publish(settings, 4000)
    first = spawn("streams", "archive", **quick)
    eventually(lambda: rows() > 200, "the first process archives")
    first.kill()
    second = spawn("streams", "archive", **quick)
    publish(settings, 4000, start=4000)
    eventually(lambda: rows() > 5000, "the second process takes over", timeout=60)
    publish(settings, 2000, start=8000)
    second.signal(signal.SIGSTOP)
    third = spawn("streams", "archive", **quick)
    publish(settings, 2000, start=10_000)
    eventually(
        lambda: rows() == 12_000, "the third process archives what the paused one holds", timeout=60
    )
    second.signal(signal.SIGCONT)
    publish(settings, 3000, start=12_000)
    eventually(lambda: rows() == 15_000, "both go on", timeout=60)
    third.stop()
    publish(settings, 1000, start=15_000)
    eventually(lambda: rows() == 16_000, "the one that was paused goes on alone", timeout=60)
    assert second.alive
    second.stop()
    assert third.exit_code == second.exit_code == 0
    assert_every_offset_once(settings)


@pytest.mark.process
def test_a_buffer_is_published_when_the_process_stops(
    broker: object, settings: Settings, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    publish(settings, 50)
    child = spawn("streams", "archive", ARCHIVE_FILE_S="3600")
    eventually(
        lambda: "partitions_assigned" in child.log.read_text(), "the process has its partitions"
    )
    child.stop()
    Archiver(settings).run(until_idle=True)
    assert_every_offset_once(settings)
