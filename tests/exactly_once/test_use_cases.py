"""Changed use cases: a default one counts events without one, a removed type makes dead letters."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from store.dead_letters import letters as dlq
from store.log.producer import Producer
from store.state import keys
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, ingest_all, rebuild
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic

pytestmark = pytest.mark.timeout(240)


@pytest.mark.process
@pytest.mark.usefixtures("broker")
def test_a_rebuild_moves_unlabelled_counts_to_the_default_use_case_and_ingest_says_so(
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    spawn: Spawn,
    seed: int,
    tmp_path: Path,
) -> None:
    marked = _with_default(settings, tmp_path)
    environment = {"USE_CASES_PATH": str(marked.use_cases_path)}
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 400)
    ingest_all(redis, settings, ingest)
    unlabelled = keys.ONLY.popular(keys.POPULAR_UNLABELLED)
    before = redis.zcard(unlabelled)
    assert before

    child = ingest(**environment)
    with Producer(settings) as producer:
        traffic.burst(producer, 400)
    caught_up(redis, settings, child)
    child.stop()
    log = child.log.read_text()
    assert "unlabelled_counts" in log
    assert "streams rebuild --wipe" in log
    assert redis.zcard(unlabelled) == before, "new events count in the default use case"

    archive(spawn)
    rebuild(spawn, "--wipe", **environment)
    oracle.assert_equal(redis, marked)
    assert not redis.exists(unlabelled)


@pytest.mark.usefixtures("broker")
def test_a_rebuild_makes_dead_letters_of_events_whose_type_was_removed(
    settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int, tmp_path: Path
) -> None:
    """As ingest does when it reads them again; the rebuild comes to its end."""
    path = tmp_path / "use_cases.toml"
    path.write_text(Path("core/use_cases.toml").read_text().replace("dismiss = 0.0\n", ""))
    without = settings.model_copy(update={"use_cases_path": path})
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, 300)
    ingest_all(redis, settings, ingest)
    archive(spawn)
    rebuild(spawn, "--wipe", USE_CASES_PATH=str(path))
    expected = oracle.assert_equal(redis, without)
    letters = dlq.read(settings).letters
    codes = {place: letter.code for place, letter in letters.items()}
    assert codes == expected.dead
    assert "unknown_event_type" in codes.values()


def _with_default(settings: Settings, folder: Path) -> Settings:
    """The built-in use cases, with developer_startup as the default."""
    path = folder / "use_cases.toml"
    section = "[use_cases.developer_startup]\n"
    path.write_text(
        Path("core/use_cases.toml").read_text().replace(section, f"{section}default = true\n")
    )
    return settings.model_copy(update={"use_cases_path": path})
