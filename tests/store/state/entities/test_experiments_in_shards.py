"""With several shards an experiment's numbers are in the shards of its users, and read as one."""

from __future__ import annotations

import pytest
from redis import Redis

from core.deletions import Place
from core.experiments import NONE
from core.settings import Settings
from store.state import keys
from store.state.apply import deletions
from store.state.apply.batches import OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from store.state.entities import experiments as store
from store.state.entities.experiments import Exposures
from store.state.shards import Shards, shard_of_user
from tests.store.state.entities.experiment import CONTROL, HALF, HASHER, RUNNING, fail_on_loss
from tests.support import NoLaterEvents

USERS = [f"user-{number}" for number in range(12)]


@pytest.fixture
def shards(redis: Redis, settings: Settings) -> Shards:
    """Four shards with exposures of every user."""
    shards = Shards(settings.model_copy(update={"redis_shards": 4}))
    exposures = Exposures(RUNNING, 1000, fail_on_loss, HASHER, 4)
    for user_id in USERS:
        exposures.add(HALF, user_id)
    for client in shards:
        deletions.mark_ready(client)
        exposures.write(client)
        client.hset(keys.of(client).experiment_events(HALF.id), "ev:like", 2)
    return shards


def test_numbers_are_added_up_and_deleted_in_every_shard(redis: Redis, shards: Shards) -> None:
    counts = store.read(shards, HALF.id)
    assert counts.exposed == dict.fromkeys(USERS, 1)
    assert counts.events == {"like": 8}
    assert len(redis.keys(f"*:{HALF.id}:exposed")) == 4
    assert store.forget(shards, HALF.tag)
    assert redis.keys("*experiment*") == []
    assert store.read(shards, CONTROL.id) == ({}, {}, {})


def test_a_deleted_user_leaves_the_sets_of_an_experiment_that_no_longer_runs(
    redis: Redis, settings: Settings, shards: Shards
) -> None:
    gone = next(user_id for user_id in USERS if shard_of_user(user_id, 4) == 3)
    applier = EntryApplier(
        shards[3],
        Planner(settings.use_cases, NONE, 4),
        50,
        lambda _published: None,
        NoLaterEvents(),
        shards.first,
    )
    entry = Entry("user", HASHER("user", gone), gone, Place(9e9, 3, 0, "u"), None)
    applier.apply(EntryBatch(OffsetRange("u", 3, 0, 1), [entry]))
    applier.close()
    assert store.read(shards, HALF.id).exposed == dict.fromkeys(set(USERS) - {gone}, 1)
