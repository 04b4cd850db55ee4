"""Counts exposures on a real Redis: once, bounded, without deleted users, after outages."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from core.errors import StoreUnavailable
from core.experiments import recommendation_id
from core.settings import Settings
from store.state import connection, wipe
from store.state.entities import experiments as store
from store.state.entities.experiments import Exposures
from store.state.shards import Shards
from tests.store.state.entities.experiment import (
    CONTROL,
    HALF,
    HASHER,
    RUNNING,
    A,
    B,
    C,
    Writer,
    event,
    fail_on_loss,
)


def test_exposures_add_up_and_are_written_once(redis: Redis) -> None:
    exposures = Exposures(RUNNING, 1000, fail_on_loss, HASHER)
    for user, variant in ((A, CONTROL), (B, CONTROL), (A, CONTROL), (C, HALF)):
        exposures.add(variant, user)
    exposures.write(redis)
    exposures.write(redis)
    assert store.read([redis], CONTROL.id).exposed == {A: 2, B: 1}
    exposures.add(CONTROL, A)
    exposures.write(redis)
    assert store.read([redis], CONTROL.id).exposed == {A: 3, B: 1}
    assert store.read([redis], HALF.id).exposed == {C: 1}
    (definition,) = store.definitions(redis).values()
    assert definition.name == "blend"
    assert [(variant.name, dict(variant.overrides)) for variant in definition.variants] == [
        ("control", {}),
        ("half", {"ensemble_als_weight": 0.5}),
    ]


def test_exposures_are_written_after_an_outage_of_redis(
    redis: Redis, own_redis_server: Any, settings: Settings
) -> None:
    exposures = Exposures(RUNNING, 1000, fail_on_loss, HASHER)
    client = connection.connect(settings, 1.0)
    for number in range(700):  # more than one transaction
        exposures.add(CONTROL, str(number))
    own_redis_server.kill()
    with pytest.raises(StoreUnavailable):
        exposures.write(client)
    exposures.add(CONTROL, "0")
    own_redis_server.start()
    exposures.write(client)
    exposed = store.read([client], CONTROL.id).exposed
    assert len(exposed) == 700
    assert exposed["0"] == 2


def test_an_exposure_from_before_the_deletion_is_not_counted(
    redis: Redis, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exposures = Exposures(RUNNING, 1000, fail_on_loss, HASHER)
    exposures.add(CONTROL, A)
    exposures.write(redis)
    exposures.add(CONTROL, A)
    exposures.add(CONTROL, B)
    writer.delete(A, broker_time=20.0)
    exposures.write(redis)
    assert store.read([redis], CONTROL.id).exposed == {B: 1}
    exposures.add(CONTROL, A)  # comes back
    exposures.write(redis)
    assert store.read([redis], CONTROL.id).exposed == {A: 1, B: 1}
    exposures.add(CONTROL, A)
    # deleted between the look and the write
    _at_multi(monkeypatch, lambda: writer.delete(A, broker_time=30.0))
    exposures.write(redis)
    assert store.read([redis], CONTROL.id).exposed == {B: 1}


def test_the_queue_and_the_users_of_a_variant_are_bounded(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_WAITING", 3)
    lost: list[int] = []
    exposures = Exposures(RUNNING, 2, lambda: lost.append(1), HASHER)
    for user in ("1", "2", "1", "4"):
        exposures.add(HALF, user)
    assert len(lost) == 1
    exposures.write(redis)
    exposures.add(HALF, "1")
    exposures.add(HALF, "5")
    exposures.write(redis)
    assert store.read([redis], HALF.id).exposed == {"1": 3, "2": 1}


def test_the_exposures_of_an_outage_are_bounded(
    redis: Redis, own_redis_server: Any, settings: Settings, monkeypatch: Any
) -> None:
    monkeypatch.setattr(store, "MOST_WAITING", 3)
    lost: list[int] = []
    exposures = Exposures(RUNNING, 100, lambda: lost.append(1), HASHER)
    client = connection.connect(settings, 1.0)
    own_redis_server.kill()
    for number in range(10):
        exposures.add(HALF, str(number))
        with pytest.raises(StoreUnavailable):
            exposures.write(client)
    own_redis_server.start()
    exposures.write(client)
    exposures.write(client)
    assert sorted(store.read([client], HALF.id).exposed) == ["0", "1", "2", "3", "4", "5"]
    assert len(lost) == 4


def test_a_deleted_experiment_leaves_no_key(
    redis: Redis, writer: Writer, settings: Settings
) -> None:
    exposures = Exposures(RUNNING, 10, fail_on_loss, HASHER)
    exposures.add(HALF, C)
    exposures.write(redis)
    writer.apply(event(C, "like", recommendation_id(HALF)))
    assert store.forget(Shards(settings), HALF.tag)
    assert redis.keys("experiment*") == []
    assert not store.forget(Shards(settings), HALF.tag)


def test_a_wipe_deletes_outcomes_and_leaves_exposures(
    redis: Redis, writer: Writer, settings: Settings
) -> None:
    """What the log can make again goes; what is nowhere else stays."""
    exposures = Exposures(RUNNING, 10, fail_on_loss, HASHER)
    exposures.add(HALF, C)
    exposures.write(redis)
    writer.apply(event(C, "like", recommendation_id(HALF)))
    wipe.wipe(settings)
    assert sorted(redis.keys("*")) == [f"experiment:{HALF.id}:exposed".encode(), b"experiments"]


def _at_multi(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    """Do `action` just before the next MULTI of a pipeline, once."""
    from redis.client import Pipeline

    multi, actions = Pipeline.multi, [action]

    def late(pipe: Pipeline) -> None:
        if actions:
            actions.pop()()
        multi(pipe)

    monkeypatch.setattr(Pipeline, "multi", late)
