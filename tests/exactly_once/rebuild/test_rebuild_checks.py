"""A rebuild changes nothing until it knows that it can finish; what stops ingest or a rebuild names
a way out that works.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from core.errors import (
    ArchiveError,
    ConfigurationError,
    EddylineError,
    LogRewound,
    LogUnavailable,
    StoreError,
)
from core.settings import Settings
from core.types import Item, User
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.log.producer import Producer
from store.state import keys, running, wipe
from store.state.lease import Lease
from streams.archiver.archiver import Archiver
from streams.rebuild import command as rebuild
from testing.process import Child
from tests import oracle
from tests.exactly_once.conftest import caught_up, ends
from tests.exactly_once.traffic import Traffic
from tests.support import eventually
from tests.topics import recreate, trim, use_retention

Ingest = Callable[..., Child]
Spawn = Callable[..., Child]

pytestmark = pytest.mark.timeout(150)


def _send(settings: Settings, seed: int, count: int) -> None:
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, count)
        for number in range(12):
            producer.item(
                f"startup:{number}", Item(item_id=f"startup:{number}", item_type="startup")
            )
            producer.user(f"user-{number}", User(user_id=f"user-{number}", interests=["energy"]))


def _everything(redis: Redis) -> dict[bytes, bytes | None]:
    """Every key of Redis as the server itself writes it out, but for who holds the lease and which
    ingest runs.
    """
    kept = (keys.lease(running.REBUILD_LEASE).encode(), keys.INGEST_RUNNING.encode())
    return {key: redis.dump(key) for key in redis.scan_iter(count=1000) if key not in kept}  # type: ignore[misc]


def _run(spawn: Spawn, *arguments: str, **environment: str) -> str:
    """Run a command of `streams` to its end; answers its output."""
    child = spawn("streams", *arguments, **environment)
    assert child.wait(90) == 0, child.describe("failed")
    return child.log.read_text()


def _applied(redis: Redis, settings: Settings, ingest: Ingest, **environment: str) -> None:
    """Ingest up to the log's end, and stop."""
    child = ingest(**environment)
    caught_up(redis, settings, child)
    child.stop()


def _stopped(child: Child, text: str) -> None:
    assert child.wait(60) == 1, child.describe("goes on")
    assert text in child.log.read_text()


def test_a_wipe_that_could_not_be_made_good_changes_nothing(
    broker: object,
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    spawn: Spawn,
    seed: int,
    tmp_path: Path,
) -> None:
    small = settings.model_copy(update={"archive_file_events": 50})
    topic = settings.interactions_topic
    _send(settings, seed, 600)
    _applied(redis, settings, ingest)
    Archiver(small).run(until_idle=True)

    def damaged(name: str, change: Callable[[Archive, Path], object]) -> dict[str, str]:
        """A copy of the archive with a fault; answers the settings that name it."""
        folder = tmp_path / name
        shutil.copytree(settings.archive_url, folder)
        change(Archive(str(folder)), folder / topic / "partition=0")
        return {"archive_url": str(folder)}

    def lengthen(archive: Archive, _folder: Path) -> None:
        end = archive.position(topic, 0)
        archive.append(topic, 0, end, end + 9, SCHEMA.empty_table())

    def relabel(archive: Archive, _folder: Path) -> None:
        end = archive.position(topic, 0)
        archive.append(topic, 0, end, end + 1, SCHEMA.empty_table(), "another-topic")

    faults: list[tuple[type[EddylineError], str, dict[str, Any]]] = [
        (ArchiveError, "is ARCHIVE_URL right", {"archive_url": str(tmp_path / "mistyped")}),
        (
            LogUnavailable,
            "is the broker up",
            {"kafka_bootstrap_servers": "127.0.0.1:9", "kafka_timeout_s": 0.5},
        ),
        (
            ArchiveError,
            "are missing between",
            damaged("hole", lambda _, folder: sorted(folder.iterdir())[1].unlink()),
        ),
        (LogRewound, "the archive of another log", damaged("longer", lengthen)),
        (LogRewound, "the archive of another log", damaged("other", relabel)),
        (
            LogRewound,
            "has the partitions .9.",
            damaged("wider", lambda _, folder: folder.rename(folder.with_name("partition=9"))),
        ),
    ]
    before = _everything(redis)
    for kind, text, changes in faults:
        with pytest.raises(kind, match=text):
            rebuild.run(settings.model_copy(update=changes), wipe=True, yes=True)
        assert _everything(redis) == before, text
    with pytest.raises(ConfigurationError, match="popularity_half_life_days was 30"):
        rebuild.run(settings.model_copy(update={"popularity_half_life_days": 60.0}))
    child = spawn("streams", "rebuild", "--wipe", ARCHIVE_URL=str(tmp_path / "mistyped"))
    _stopped(child, "is ARCHIVE_URL right")
    assert _everything(redis) == before


def test_a_rebuild_shows_what_it_does_and_says_when_there_is_nothing_to_do(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    _send(settings, seed, 300)
    Archiver(settings).run(until_idle=True)
    _send(settings, seed + 1, 100)
    _applied(redis, settings, ingest)
    before = _everything(redis)
    assert "nothing to rebuild" in _run(spawn, "rebuild")
    assert _everything(redis) == before
    # the archive is shorter than what Redis held, and the log has the rest
    shown = _run(spawn, "rebuild", "--wipe")
    archived, end = (
        Archive(settings.archive_url).position(settings.interactions_topic, 0),
        ends(settings)[0],
    )
    assert f"{archived} offsets come from the archive, then {end - archived} from the log" in shown
    assert "keys of Redis (" in shown
    _applied(redis, settings, ingest)
    oracle.assert_equal(redis, settings)


def test_a_rebuild_and_an_ingest_do_not_run_at_the_same_time(
    broker: object,
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _send(settings, seed, 300)
    Archiver(settings).run(until_idle=True)
    child = ingest()
    caught_up(redis, settings, child)
    with monkeypatch.context() as patch:
        patch.setattr(running, "wait_until_none", partial(running.wait_until_none, timeout_s=0.5))
        with pytest.raises(StoreError, match="stop every ingest"):
            rebuild.run(settings, wipe=True, yes=True)
    oracle.assert_equal(redis, settings)
    child.kill()
    entries = redis.zrange(keys.INGEST_RUNNING, 0, -1)
    # so that the wait for its end is short
    redis.zadd(keys.INGEST_RUNNING, {entry: redis.time()[0] + 2 for entry in entries})
    with Lease(redis, running.REBUILD_LEASE, 30):
        _stopped(ingest(), "a rebuild of Redis runs at")
    rebuild.run(settings, wipe=True, yes=True)
    _applied(redis, settings, ingest)
    oracle.assert_equal(redis, settings)


def test_a_rebuild_killed_while_it_wipes_or_applies_goes_on_when_run_again(
    broker: object,
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    spawn: Spawn,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _send(settings, seed, 2500)
    _applied(redis, settings, ingest)
    Archiver(settings).run(until_idle=True)
    with monkeypatch.context() as patch:
        unlink, calls = Redis.unlink, iter(range(100))
        patch.setattr(wipe, "KEYS_PER_COMMAND", 5)
        patch.setattr(
            Redis, "unlink", lambda *arguments: unlink(*arguments) if next(calls) < 3 else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            rebuild.run(settings, wipe=True, yes=True)
    assert redis.keys("user:*")
    _stopped(ingest(), "the state is incomplete")
    child = spawn("streams", "rebuild", TRANSACTION_EVENTS="1")  # goes on with the wipe
    eventually(
        lambda: (
            not redis.exists(keys.WIPE) and sum(oracle.positions(redis, settings).values()) > 100
        ),
        "the rebuild applies",
        every=0.002,
    )
    child.kill()
    assert 0 < sum(oracle.positions(redis, settings).values()) < 2500
    redis.delete(keys.lease(running.REBUILD_LEASE))  # or wait until it expires
    _run(spawn, "rebuild")
    _applied(redis, settings, ingest)
    oracle.assert_equal(redis, settings)


@pytest.mark.apache
def test_a_gap_that_the_archive_cannot_fill_ends_when_the_operator_gives_it_up(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    """Of events, with an archive that ends before the log begins, and of a catalogue that retention
    has trimmed.
    """
    for topic in (settings.items_topic, settings.users_topic):
        use_retention(settings, topic)
    _send(settings, seed, 300)
    Archiver(settings).run(until_idle=True)
    _applied(redis, settings, ingest)
    topics = (settings.interactions_topic, settings.items_topic)
    former = {topic: ends(settings, topic) for topic in topics}
    _send(settings, seed + 1, 300)
    for topic in topics:
        trim(
            settings,
            topic,
            {
                partition: min(end + 2, ends(settings, topic)[partition])
                for partition, end in former[topic].items()
            },
        )
    _stopped(ingest(), "python -m streams rebuild`")
    before = _everything(redis)
    _stopped(spawn("streams", "rebuild"), "offsets are in neither")
    _stopped(spawn("streams", "rebuild", "--wipe"), "offsets are in neither")
    assert _everything(redis) == before
    _run(spawn, "rebuild", "--from-log")
    _applied(redis, settings, ingest)
    assert oracle.positions(redis, settings) == ends(settings)
    _run(spawn, "rebuild", "--wipe", "--from-log")
    _applied(redis, settings, ingest)
    oracle.assert_equal(redis, settings)


@pytest.mark.apache
def test_a_wipe_that_would_lose_the_catalogue_needs_a_yes(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    use_retention(settings, settings.items_topic)
    _send(settings, seed, 100)
    Archiver(settings).run(until_idle=True)
    _applied(redis, settings, ingest)
    trim(settings, settings.items_topic, ends(settings, settings.items_topic))
    before = _everything(redis)
    _stopped(spawn("streams", "rebuild", "--wipe"), "publish the catalogue and the profiles again")
    assert _everything(redis) == before
    _run(spawn, "rebuild", "--wipe", "--yes")
    child = ingest()
    with Producer(settings) as producer:
        producer.item("startup:1", Item(item_id="startup:1", item_type="startup"))
    caught_up(redis, settings, child)
    assert "log_begins_late" in child.log.read_text()
    oracle.assert_equal(redis, settings)


@pytest.mark.apache
def test_a_topic_created_anew_is_counted_after_starting_over(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    _send(settings, seed, 200)
    Archiver(settings).run(until_idle=True)
    _applied(redis, settings, ingest)
    recreate(settings, settings.interactions_topic)
    _send(settings, seed + 1, 400)
    _stopped(ingest(), "rebuild --wipe --from-log")
    _stopped(spawn("streams", "rebuild"), "rebuild --wipe --from-log")
    _stopped(spawn("streams", "rebuild", "--wipe"), "rebuild --wipe --from-log")
    _run(spawn, "rebuild", "--wipe", "--from-log")
    _applied(redis, settings, ingest)
    oracle.assert_equal(redis, settings)
    _stopped(spawn("streams", "archive"), "Set another ARCHIVE_URL")
    elsewhere = {"ARCHIVE_URL": settings.archive_url + "-new"}
    _run(spawn, "archive", "--until-idle", **elsewhere)
    _run(spawn, "rebuild", "--wipe", **elsewhere)
    _applied(redis, settings, ingest, **elsewhere)
    oracle.assert_equal(redis, settings)


def test_the_advice_of_other_errors_leads_to_a_running_ingest(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    """A foreign key, settings that have changed, a damaged file of the archive."""
    redis.set("user:user-1", "not a hash")
    _send(settings, seed, 400)
    _stopped(ingest(), "user:user-1")
    redis.delete("user:user-1")
    _run(spawn, "archive", "--until-idle", ARCHIVE_FILE_EVENTS="40")
    _run(spawn, "rebuild", "--wipe")
    _applied(redis, settings, ingest)
    oracle.assert_equal(redis, settings)

    changed = {"POPULARITY_HALF_LIFE_DAYS": "60"}
    _stopped(ingest(**changed), "rebuild --wipe")
    _run(spawn, "rebuild", "--wipe", **changed)
    _applied(redis, settings, ingest, **changed)
    oracle.assert_equal(redis, settings.model_copy(update={"popularity_half_life_days": 60.0}))

    files = sorted(
        (Path(settings.archive_url) / settings.interactions_topic / "partition=0").iterdir()
    )
    files[1].write_bytes(files[1].read_bytes()[:-30])
    redis.flushall()
    _stopped(spawn("streams", "rebuild"), files[1].name)
    for file in files[1:]:  # it and all later ones
        file.unlink()
    _run(spawn, "archive", "--until-idle")
    _run(spawn, "rebuild")
    _applied(redis, settings, ingest)
    oracle.assert_equal(redis, settings)
