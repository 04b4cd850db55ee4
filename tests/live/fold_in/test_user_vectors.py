"""Vectors of users: a live worker writes the fold-in of the history, and none of deleted users."""

from __future__ import annotations

import pytest
from redis import Redis

from core.settings import Settings
from store.state import keys
from tests.live.parts import SHARDED, Worker, add_likes
from tests.live.world import is_fresh


@SHARDED
def test_all_events_of_a_user_in_one_batch_count(worker: Worker) -> None:
    names = ("ann", "bob", "cat", "eve")
    for name in names:
        worker.add_likes(name, *(f"item-{row}" for row in range(10)))
    worker.fold(*[(name, f"item-{row}") for row in range(10) for name in names])
    for name in names:
        assert worker.is_fresh(name)
        assert worker.user(name)[b"as_of"] == b"10"
    assert worker.users.folded == 4


def test_only_the_latest_events_count_beyond_the_cap(settings: Settings, redis: Redis) -> None:
    worker = Worker(settings, history_cap=50)
    add_likes(redis, "ann", "item-1", times=60)
    add_likes(redis, "ann", "item-2", times=49)
    worker.fold(("ann", "item-2"))
    assert redis.hget(keys.ONLY.user_als("ann"), "as_of") == b"109"
    assert is_fresh(redis, worker.settings, worker.space.model, "ann")


def test_a_hint_of_many_users_is_folded_in_by_batches(settings: Settings, redis: Redis) -> None:
    worker = Worker(settings, live_batch_users=7)
    names = [f"user-{number}" for number in range(20)]
    for number, name in enumerate(names):
        add_likes(redis, name, f"item-{number}", "item-0")
    worker.fold(*[(name, "item-0") for name in names * 2])
    assert all(is_fresh(redis, worker.settings, worker.space.model, name) for name in names)


def test_a_vector_of_another_bundle_is_not_fresh(
    worker: Worker, settings: Settings, redis: Redis
) -> None:
    add_likes(redis, "ann", "item-1")
    worker.fold(("ann", "item-1"))
    other = Worker(settings, seed=2)
    assert not is_fresh(redis, settings, other.space.model, "ann")
    other.fold(("ann", "item-1"))
    assert is_fresh(redis, settings, other.space.model, "ann")


@SHARDED
def test_a_user_deleted_during_the_fold_in_keeps_no_vector_of_deleted_events(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the read and the write the user is deleted, and returns with as many other events."""
    worker.add_likes("ann", "item-1", "new")
    store = worker.store_of("ann")
    read, reads = store.read, []

    def read_and_delete(user_ids: list[str]) -> object:
        users = read(user_ids)
        if not reads:
            worker.delete("ann")
            worker.add_likes("ann", "item-7", "item-8")
        reads.append(user_ids)
        return users

    monkeypatch.setattr(store, "read", read_and_delete)
    worker.fold(("ann", "item-1"), ("ann", "new"))
    assert len(reads) == 2
    assert worker.is_fresh("ann")
    assert not any(worker.lists("new"))


def test_after_a_lost_connection_nothing_is_written_without_a_new_read(
    worker: Worker, redis: Redis
) -> None:
    add_likes(redis, "ann", "item-1")
    store = worker.store_of("ann")
    store.read(["ann"])
    store.close()
    assert not store.write({})


def test_the_count_of_a_user_is_read_before_the_history(worker: Worker, redis: Redis) -> None:
    """In the other order, an event applied between the two would be counted, but not folded in."""
    with redis.monitor() as monitor:
        worker.store_of("ann").read(["ann", "bob"])
        commands: list[str] = []
        while len(commands) < 5:
            name = monitor.next_command()["command"].split()[0]
            if name in ("WATCH", "HGET", "LRANGE"):
                commands.append(name)
    assert commands == ["WATCH", "HGET", "LRANGE", "HGET", "LRANGE"]
