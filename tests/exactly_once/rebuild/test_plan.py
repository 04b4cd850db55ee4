"""A rebuild changes nothing until it knows that it can finish, and goes on after a kill."""

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
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.state import keys, running, wipe
from store.state.lease import EXPIRY_LEASE, Lease
from streams.archiver.archiver import Archiver
from streams.rebuild import command as rebuild_command
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import assert_stops, ingest_all, rebuild
from tests.exactly_once.conftest import Ingest, caught_up, ends
from tests.exactly_once.rebuild.steps import dump, send
from tests.support import eventually

pytestmark = [pytest.mark.usefixtures("broker"), pytest.mark.timeout(300)]


def test_a_wipe_that_the_archive_could_not_restore_changes_nothing(
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    spawn: Spawn,
    seed: int,
    tmp_path: Path,
) -> None:
    small = settings.model_copy(update={"archive_file_events": 50})
    topic = settings.interactions_topic
    send(settings, seed, 600)
    ingest_all(redis, settings, ingest)
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
    before = dump(redis)
    for kind, text, changes in faults:
        with pytest.raises(kind, match=text):
            rebuild_command.run(settings.model_copy(update=changes), wipe=True, yes=True)
        assert dump(redis) == before, text
    with pytest.raises(ConfigurationError, match="popularity_half_life_days was 30"):
        rebuild_command.run(settings.model_copy(update={"popularity_half_life_days": 60.0}))
    child = spawn("streams", "rebuild", "--wipe", ARCHIVE_URL=str(tmp_path / "mistyped"))
    assert_stops(child, "is ARCHIVE_URL right")
    assert dump(redis) == before


def test_a_rebuild_shows_its_plan_and_says_when_there_is_nothing_to_do(
    settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    send(settings, seed, 300)
    Archiver(settings).run(until_idle=True)
    send(settings, seed + 1, 100)
    ingest_all(redis, settings, ingest)
    before = dump(redis)
    assert "nothing to rebuild" in rebuild(spawn)
    assert dump(redis) == before
    # the archive ends before the position of Redis, and the log has the rest
    output = rebuild(spawn, "--wipe")
    archived, end = (
        Archive(settings.archive_url).position(settings.interactions_topic, 0),
        ends(settings)[0],
    )
    assert f"{archived} offsets come from the archive, then {end - archived} from the log" in output
    assert "keys of Redis (" in output
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)


def test_a_rebuild_and_an_ingest_do_not_run_at_the_same_time(
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send(settings, seed, 300)
    Archiver(settings).run(until_idle=True)
    child = ingest()
    caught_up(redis, settings, child)
    with monkeypatch.context() as patch:
        patch.setattr(running, "wait_until_none", partial(running.wait_until_none, timeout_s=0.5))
        with pytest.raises(StoreError, match="stop every ingest"):
            rebuild_command.run(settings, wipe=True, yes=True)
    oracle.assert_equal(redis, settings)
    child.kill()
    entries = redis.zrange(keys.ONLY.running, 0, -1)
    # so that the wait for its end is short
    redis.zadd(keys.ONLY.running, {entry: redis.time()[0] + 2 for entry in entries})
    with Lease(redis, running.REBUILD_LEASE, 30):
        assert_stops(ingest(), "a rebuild of Redis runs at")
    rebuild_command.run(settings, wipe=True, yes=True)
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)


def test_a_rebuild_killed_while_it_wipes_or_applies_goes_on_when_run_again(
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    spawn: Spawn,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send(settings, seed, 2500)
    ingest_all(redis, settings, ingest)
    Archiver(settings).run(until_idle=True)
    with monkeypatch.context() as patch:
        unlink, calls = Redis.unlink, iter(range(100))
        patch.setattr(wipe, "KEYS_PER_COMMAND", 5)
        patch.setattr(
            Redis, "unlink", lambda *arguments: unlink(*arguments) if next(calls) < 3 else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            rebuild_command.run(settings, wipe=True, yes=True)
    assert redis.keys("user:*")
    assert_stops(ingest(), "the state is incomplete")
    child = spawn("streams", "rebuild", TRANSACTION_EVENTS="1")  # goes on with the wipe
    eventually(
        lambda: (
            not redis.exists(keys.ONLY.wipe)
            and sum(oracle.positions(redis, settings).values()) > 100
        ),
        "the rebuild applies",
        every=0.002,
    )
    child.kill()
    assert 0 < sum(oracle.positions(redis, settings).values()) < 2500
    # or wait until they expire
    redis.delete(keys.ONLY.lease(running.REBUILD_LEASE), keys.ONLY.lease(EXPIRY_LEASE))
    rebuild(spawn)
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)
