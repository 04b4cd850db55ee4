"""The advice in the errors of ingest and rebuild leads to an ingest that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from core.types import Item
from store.log.producer import Producer
from streams.archiver.archiver import Archiver
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, assert_stops, ingest_all, rebuild
from tests.exactly_once.conftest import Ingest, caught_up, ends
from tests.exactly_once.rebuild.steps import dump, send
from tests.topics import recreate, trim, use_retention

pytestmark = [pytest.mark.usefixtures("broker"), pytest.mark.timeout(300)]


@pytest.mark.apache
def test_a_gap_that_the_archive_cannot_fill_is_accepted_by_from_log(
    settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    """A gap in the events, whose archive ends before the log starts, and a gap in the catalogue."""
    for topic in (settings.items_topic, settings.users_topic):
        use_retention(settings, topic)
    send(settings, seed, 300)
    Archiver(settings).run(until_idle=True)
    ingest_all(redis, settings, ingest)
    topics = (settings.interactions_topic, settings.items_topic)
    former = {topic: ends(settings, topic) for topic in topics}
    send(settings, seed + 1, 300)
    for topic in topics:
        trim(
            settings,
            topic,
            {
                partition: min(end + 2, ends(settings, topic)[partition])
                for partition, end in former[topic].items()
            },
        )
    assert_stops(ingest(), "python -m streams rebuild`")
    before = dump(redis)
    assert_stops(spawn("streams", "rebuild"), "offsets are in neither")
    assert_stops(spawn("streams", "rebuild", "--wipe"), "offsets are in neither")
    assert dump(redis) == before
    rebuild(spawn, "--from-log")
    ingest_all(redis, settings, ingest)
    assert oracle.positions(redis, settings) == ends(settings)
    rebuild(spawn, "--wipe", "--from-log")
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)


@pytest.mark.apache
def test_a_wipe_that_would_lose_the_catalogue_needs_the_option_yes(
    settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    use_retention(settings, settings.items_topic)
    send(settings, seed, 100)
    Archiver(settings).run(until_idle=True)
    ingest_all(redis, settings, ingest)
    trim(settings, settings.items_topic, ends(settings, settings.items_topic))
    before = dump(redis)
    assert_stops(
        spawn("streams", "rebuild", "--wipe"), "publish the catalogue and the profiles again"
    )
    assert dump(redis) == before
    rebuild(spawn, "--wipe", "--yes")
    child = ingest()
    with Producer(settings) as producer:
        producer.item("startup:1", Item(item_id="startup:1", item_type="startup"))
    caught_up(redis, settings, child)
    assert "log_begins_late" in child.log.read_text()
    oracle.assert_equal(redis, settings)


@pytest.mark.apache
def test_a_topic_created_anew_is_counted_after_a_rebuild_from_the_log(
    settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    send(settings, seed, 200)
    Archiver(settings).run(until_idle=True)
    ingest_all(redis, settings, ingest)
    recreate(settings, settings.interactions_topic)
    send(settings, seed + 1, 400)
    assert_stops(ingest(), "rebuild --wipe --from-log")
    assert_stops(spawn("streams", "rebuild"), "rebuild --wipe --from-log")
    assert_stops(spawn("streams", "rebuild", "--wipe"), "rebuild --wipe --from-log")
    rebuild(spawn, "--wipe", "--from-log")
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)
    assert_stops(spawn("streams", "archive"), "Set another ARCHIVE_URL")
    elsewhere = {"ARCHIVE_URL": settings.archive_url + "-new"}
    archive(spawn, **elsewhere)
    rebuild(spawn, "--wipe", **elsewhere)
    ingest_all(redis, settings, ingest, **elsewhere)
    oracle.assert_equal(redis, settings)


def test_the_advice_of_other_errors_leads_to_a_running_ingest(
    settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    """A key of another type, changed settings, and a damaged file of the archive."""
    redis.set("user:user-1", "not a hash")
    send(settings, seed, 400)
    assert_stops(ingest(), "user:user-1")
    redis.delete("user:user-1")
    archive(spawn, ARCHIVE_FILE_EVENTS="40")
    rebuild(spawn, "--wipe")
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)

    changed = {"POPULARITY_HALF_LIFE_DAYS": "60"}
    assert_stops(ingest(**changed), "rebuild --wipe")
    rebuild(spawn, "--wipe", **changed)
    ingest_all(redis, settings, ingest, **changed)
    oracle.assert_equal(redis, settings.model_copy(update={"popularity_half_life_days": 60.0}))

    files = sorted(
        (Path(settings.archive_url) / settings.interactions_topic / "partition=0").iterdir()
    )
    files[1].write_bytes(files[1].read_bytes()[:-30])
    redis.flushall()
    assert_stops(spawn("streams", "rebuild"), files[1].name)
    for file in files[1:]:  # it and all later ones
        file.unlink()
    archive(spawn)
    rebuild(spawn)
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)
