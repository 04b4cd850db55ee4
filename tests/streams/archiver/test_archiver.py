"""`streams archive` on a real broker: every offset of the log in the archive once, whatever dies,
pauses or joins.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer

from core.codec import encode_json
from core.errors import LogGap, LogRewound
from core.settings import Settings
from core.types import Interaction
from store.archive.layout import SCHEMA, Archive
from store.log import client as log
from store.log import ends as log_ends
from store.log.producer import Producer
from streams.archiver.archiver import Archiver
from testing.process import Child
from tests.support import eventually
from tests.topics import recreate, trim

Spawn = Callable[..., Child]
BEYOND = 10**9
"""No log of a test is this long, so that the end is looked at twice."""


def publish(settings: Settings, count: int, start: int = 0) -> None:
    with Producer(settings) as producer:
        for number in range(start, start + count):
            producer.interaction(
                Interaction(
                    f"e{number}",
                    f"u{number % 97}",
                    f"i{number % 31}",
                    "view",
                    1_700_000_000.0 + number,
                )
            )


def ends(settings: Settings) -> dict[int, int]:
    """The end of each partition that holds anything."""
    consumer = Consumer(log.consumer_config(settings, "ends"))
    try:
        found = {
            partition: log_ends.ends(
                settings, consumer, settings.interactions_topic, partition, BEYOND
            )[1]
            for partition in range(settings.topic_partitions)
        }
    finally:
        consumer.close()
    return {partition: end for partition, end in found.items() if end}


def archived(settings: Settings) -> dict[int, list[int]]:
    """The offsets of each partition, in the archive's order."""
    found: dict[int, list[int]] = {}
    for table in Archive(settings.archive_url).read(settings.interactions_topic):
        for partition, offset in zip(
            table.column("partition").to_pylist(), table.column("offset").to_pylist(), strict=True
        ):
            found.setdefault(partition, []).append(offset)
    return found


def assert_every_offset_once(settings: Settings) -> None:
    assert archived(settings) == {
        partition: list(range(end)) for partition, end in ends(settings).items()
    }


@pytest.mark.process
def test_every_message_is_a_row_valid_or_not(broker: object, settings: Settings) -> None:
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
def test_a_process_that_takes_over_from_a_killed_one_repeats_and_misses_nothing(
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
def test_processes_killed_paused_and_joined_leave_every_offset_once(
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
def test_a_buffer_is_published_at_shutdown(
    broker: object, settings: Settings, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    publish(settings, 50)
    child = spawn("streams", "archive", ARCHIVE_FILE_S="3600")
    eventually(
        lambda: "partitions taken" in child.log.read_text(), "the process has its partitions"
    )
    child.stop()
    Archiver(settings).run(until_idle=True)
    assert_every_offset_once(settings)


def test_an_archive_beyond_the_logs_end_is_not_continued(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    publish(settings, 10)
    Archiver(settings).run(until_idle=True)
    archive = Archive(settings.archive_url)
    partition, position = next(iter(archive.positions(settings.interactions_topic).items()))
    archive.append(
        settings.interactions_topic, partition, position, position + 5, SCHEMA.empty_table()
    )
    with pytest.raises(
        LogRewound, match=r"the archive holds offsets up to \d+, but the log ends at"
    ):
        Archiver(settings).run(until_idle=True)


@pytest.mark.apache
def test_a_gap_between_archive_and_log_is_named_and_can_be_recorded(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    publish(settings, 200)
    Archiver(settings).run(until_idle=True)
    former = ends(settings)
    publish(settings, 800, start=200)
    trim(
        settings,
        settings.interactions_topic,
        {partition: end + 50 for partition, end in former.items()},
    )
    with pytest.raises(
        LogGap,
        match=(
            r"archive ends at offset \d+, but the log begins at \d+: 50 offsets "
            r"between.*--accept-gap"
        ),
    ):
        Archiver(settings).run(until_idle=True)
    Archiver(settings, accept_gap=True).run(until_idle=True)
    assert archived(settings) == {
        partition: [*range(former[partition]), *range(former[partition] + 50, end)]
        for partition, end in ends(settings).items()
    }
    assert Archive(settings.archive_url).positions(settings.interactions_topic) == ends(settings)


@pytest.mark.apache
def test_a_first_archive_of_a_trimmed_log_begins_where_the_log_begins(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    publish(settings, 400)
    trim(settings, settings.interactions_topic, dict.fromkeys(ends(settings), 20))
    Archiver(settings).run(until_idle=True)
    trim(settings, settings.interactions_topic, dict.fromkeys(ends(settings), 40))
    Archiver(settings).run(until_idle=True)
    assert archived(settings) == {
        partition: list(range(20, end)) for partition, end in ends(settings).items()
    }


@pytest.mark.apache
@pytest.mark.parametrize("refilled", [5, 100, 300])
def test_a_topic_created_anew_under_a_running_archive_stops_it(
    broker: object, settings: Settings, spawn: Spawn, refilled: int
) -> None:
    """Refilled below, about at, and far beyond the offsets that the archive has read."""
    log.ensure_topics(settings)
    publish(settings, 100)
    child = spawn("streams", "archive", ARCHIVE_FILE_S="1")
    eventually(
        lambda: (
            sum(Archive(settings.archive_url).positions(settings.interactions_topic).values())
            == 100
        ),
        "all is archived",
    )
    before = archived(settings)
    recreate(settings, settings.interactions_topic)
    publish(settings, refilled, start=1000)
    assert child.wait(60) == 1, child.describe("goes on")
    assert "was created anew" in child.log.read_text()
    assert archived(settings) == before, "nothing of the new topic is mixed with the old one"
    with pytest.raises(LogRewound, match="Set another ARCHIVE_URL"):
        Archiver(settings).run(until_idle=True)
    elsewhere = settings.model_copy(update={"archive_url": settings.archive_url + "-new"})
    assert Archiver(elsewhere).run(until_idle=True) == refilled
    assert_every_offset_once(elsewhere)
