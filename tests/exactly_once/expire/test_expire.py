"""Redis is bounded in time: `streams expire` removes what is too old, and nothing else."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from core.deletions import IdHasher, Place
from core.settings import Settings
from store.log.producer import Producer
from store.state import keys
from store.state.entities import popularity
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, run
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic
from tests.support import eventually

pytestmark = [pytest.mark.process, pytest.mark.timeout(360)]

NAME = keys.POPULAR_UNLABELLED


def test_expire_removes_old_deletions_and_items_of_low_popularity_and_scores_stay_within_bounds(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    with Traffic(settings, seed):
        child = ingest()
        eventually(lambda: redis.exists(keys.ONLY.popular(NAME)), "popularities")
        run(spawn, "expire", POPULARITY_MIN_WEIGHT="4")  # ingest adds to the scores meanwhile
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)
    before = popularity.top(redis, [NAME], 1000)[NAME]
    median = before[len(before) // 2][1] * popularity.decay_factor(settings, time.time())
    archive(spawn)
    hasher = IdHasher(settings.deletion_salt)
    for user_id, at in {"old": 5.0, "new": time.time()}.items():
        redis.hset(keys.ONLY.users_deleted, hasher("user", user_id), Place(at).text())
    run(spawn, "expire", POPULARITY_MIN_WEIGHT=str(median))
    # nothing that the deletion of "old" excludes is in the log or the archive
    assert redis.hkeys(keys.ONLY.users_deleted) == [hasher("user", "new").encode()]
    after = popularity.top(redis, [NAME], 1000)[NAME]
    assert after == before[: len(after)]
    assert len(before) // 3 < len(after) < len(before)
    oracle.assert_equal(redis, settings)
    with Producer(settings) as producer:
        Traffic(settings, seed + 1).burst(producer, 500)  # removed items come back
    caught_up(redis, settings, child)
    assert len(popularity.top(redis, [NAME], 1000)[NAME]) > len(after)
    oracle.assert_equal(redis, settings)
