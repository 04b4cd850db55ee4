"""Factors of new items: computed from their users, kept up to date, removed with their users."""

from __future__ import annotations

import itertools
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.sparse as sp
from redis import Redis

from core.errors import StoreUnavailable
from core.settings import Settings
from store.state import keys
from store.state.entities import new_items as new_items_in_redis
from streams.live import new_items
from streams.live.model import Space
from tests.live.parts import SHARDED, Worker, add_likes
from tests.live.world import is_fresh, model


@pytest.fixture(autouse=True)
def _due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed item is due without a delay after its last refold."""
    monkeypatch.setattr(new_items, "LEAST_S", 0.0)
    monkeypatch.setattr(new_items, "PER_USER_S", 0.0)


@SHARDED
def test_a_new_item_gets_factors_from_its_users(worker: Worker, redis: Redis) -> None:
    for name, items in {
        "ann": ["item-1", "new"],
        "bob": ["item-2", "item-3", "new", "new"],
        "eve": ["new"],
    }.items():
        worker.add_likes(name, *items)
    worker.fold(("ann", "new"), ("bob", "new"), ("eve", "new"), ("bob", "item-2"))
    worker.new_items.refold(worker.space)
    stored, space = worker.item("new"), worker.space
    assert worker.shards.item_users(["new"]) == [{"ann": 3.0, "eve": 3.0, "bob": 6.0}]
    assert (stored[b"made_with"].decode(), stored[b"as_of"]) == (space.made_with, b"3")
    vectors = np.stack(
        [np.frombuffer(worker.user(name)[b"vector"], dtype="<f4") for name in ("ann", "bob")]
    )
    expected = space.model.fold_items_in(
        sp.csr_matrix(np.array([[3, 6]], dtype=np.float32)), vectors
    )[0]
    np.testing.assert_allclose(
        np.frombuffer(stored[b"vector"], dtype="<f4"), expected, rtol=1e-4, atol=1e-6
    )
    names = keys.of(worker.clients.first)
    assert [fields for _, fields in redis.xrange(names.new_item_changes)] == [{b"item": b"new"}]
    assert worker.shards.new_items() == ["new"]
    read = new_items_in_redis.changes(worker.clients.first)
    assert (read.complete, read.factors["new"].vector) == (True, stored[b"vector"])


def test_the_users_of_a_new_item_in_several_shards_count_together(
    settings: Settings, redis: Redis
) -> None:
    """The three heaviest of all lists decide; without one of them, the next one does."""
    worker = Worker(settings, redis_shards=4, young_item_users=3)
    for times, name in enumerate(("ann", "bob", "cat", "dan", "eve", "joe"), 1):
        worker.add_likes(name, f"item-{times}", *["new"] * times)
        worker.fold((name, "new"))
    worker.maintain()
    assert [sorted(users) for users in worker.lists("new")] == [
        ["eve", "joe"],
        ["cat", "dan"],
        ["ann", "bob"],
        [],
    ]

    def check(weights: dict[str, int], listed: int) -> None:
        vectors = [np.frombuffer(worker.user(name)[b"vector"], dtype="<f4") for name in weights]
        expected = worker.space.model.fold_items_in(
            sp.csr_matrix(np.array([[*weights.values()]], dtype=np.float32)), np.stack(vectors)
        )[0]
        stored = worker.item("new")
        np.testing.assert_allclose(
            np.frombuffer(stored[b"vector"], dtype="<f4"), expected, rtol=1e-4, atol=1e-6
        )
        assert stored[b"as_of"] == str(listed).encode()

    check({"dan": 12, "eve": 15, "joe": 18}, listed=6)
    worker.maintain()
    assert worker.new_items.folded == 1, "factors of the same users are not made again"
    worker.delete("joe")
    worker.maintain()
    check({"cat": 9, "dan": 12, "eve": 15}, listed=5)
    worker.delete("dan")
    worker.new_items.mark_changed(["new"])
    worker.new_items.refold(worker.space)  # before a check has noticed the deletion
    assert [sorted(users) for users in worker.lists("new")] == [
        ["eve"],
        ["cat"],
        ["ann", "bob"],
        [],
    ]
    worker.maintain()
    check({"bob": 6, "cat": 9, "eve": 15}, listed=4)
    worker.close()


def test_a_user_vector_does_not_contain_new_items(worker: Worker, redis: Redis) -> None:
    add_likes(redis, "ann", "item-1", "new")
    worker.fold(("ann", "new"))
    worker.new_items.refold(worker.space)
    assert is_fresh(redis, worker.settings, worker.space.model, "ann")


def test_a_hint_of_an_item_outside_the_history_changes_no_list(
    worker: Worker, redis: Redis
) -> None:
    add_likes(redis, "ann", "item-1")
    worker.fold(("ann", "invented"), ("nobody", "invented"))
    assert not redis.exists(
        keys.ONLY.item_users("invented"), keys.ONLY.new_items, keys.ONLY.user_als("nobody")
    )


def test_the_list_of_an_item_keeps_the_users_of_largest_weight(
    settings: Settings, redis: Redis
) -> None:
    worker = Worker(settings, young_item_users=2)
    for number, name in enumerate(("ann", "bob", "eve"), 1):
        add_likes(redis, name, "new", times=number)
    worker.fold(("eve", "new"), ("bob", "new"), ("ann", "new"))
    assert redis.zrange(keys.ONLY.item_users("new"), 0, -1) == [b"bob", b"eve"]


@pytest.mark.parametrize("shards", [1, 4])
def test_above_the_limit_the_least_recently_touched_new_items_are_forgotten(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    monkeypatch.setattr("store.state.entities.vectors.time.time", itertools.count(1.8e9).__next__)
    worker = Worker(settings, young_items=2, redis_shards=shards)
    for name, number in (("eve", 1), ("ann", 0), ("ann", 1), ("ann", 2), ("cat", 3), ("eve", 2)):
        worker.add_likes(name, "item-1", f"new-{number}")
        worker.fold((name, f"new-{number}"))
    assert worker.shards.new_items() == ["new-0", "new-1", "new-3", "new-2"]
    worker.maintain()
    assert worker.shards.new_items() == ["new-3", "new-2"]
    assert [len(redis.keys(f"*item:new-{number}:*")) for number in range(4)] == [
        *(0, 0),
        *((2, 2) if shards == 1 else (3, 2)),
    ]
    worker.close()


@pytest.mark.parametrize("forgotten_in", range(4))
def test_a_worker_that_dies_while_it_forgets_an_item_leaves_nothing(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch, forgotten_in: int
) -> None:
    """It dies when some shards have forgotten the item, which is touched again or not."""
    worker = Worker(settings, redis_shards=4)
    names = ("ann", "cat", "eve", "her item")
    for name in names:
        worker.add_likes(name, "item-1", "new")
    worker.fold(*((name, "new") for name in names))
    worker.maintain()
    stores = list(worker.shards)
    monkeypatch.setattr(stores[forgotten_in], "forget_items", Mock(side_effect=StoreUnavailable))
    with pytest.raises(StoreUnavailable):
        worker.shards.forget_items(["new"])
    successor = Worker(settings, redis_shards=4)
    successor.maintain()
    users = sum(map(len, successor.lists("new")))
    assert users == 4 - forgotten_in
    assert successor.item("new")[b"as_of"] == str(users).encode()
    successor.space = Space("version-2", 0.0, model(2, items=41), settings)
    for name in names:
        successor.delete(name)
    successor.maintain()
    assert not redis.keys("*item:new:*")
    assert successor.shards.new_items() == []
    worker.close()
    successor.close()


def test_an_item_that_the_bundle_knows_is_no_longer_new(
    worker: Worker, settings: Settings, redis: Redis
) -> None:
    add_likes(redis, "ann", "item-1", "item-45", "item-46")
    worker.fold(("ann", "item-45"), ("ann", "item-46"))
    worker.new_items.refold(worker.space)
    worker.space = Space("version-2", 0.0, model(2, items=46), settings)
    worker.maintain()
    assert redis.zrange(keys.ONLY.new_items, 0, -1) == [b"item-46"]
    assert not redis.exists(keys.ONLY.item_als("item-45"), keys.ONLY.item_users("item-45"))
    assert redis.hget(keys.ONLY.item_als("item-46"), "made_with") == worker.space.made_with.encode()
    assert is_fresh(redis, settings, worker.space.model, "ann")


@SHARDED
def test_deleted_users_are_removed_from_the_lists_of_new_items(
    worker: Worker, redis: Redis
) -> None:
    for name in ("ann", "bob", "eve"):
        worker.add_likes(name, "item-1", "new")
    worker.add_likes("ann", "her item")
    worker.fold(("ann", "new"), ("bob", "new"), ("eve", "new"), ("ann", "her item"))
    worker.maintain()
    for name, left in (("ann", {"bob", "eve"}), ("eve", {"bob"})):
        worker.delete(name)
        worker.maintain()
        assert set(worker.shards.item_users(["new"])[0]) == left
        assert worker.item("new")[b"as_of"] == str(len(left)).encode()
        assert not redis.keys("*her item*")
        assert worker.shards.new_items() == ["new"]
        assert not list(redis.scan_iter(f"*{name}*"))


@SHARDED
def test_another_worker_completes_the_work_of_a_dead_one(worker: Worker) -> None:
    worker.add_likes("ann", "item-1", "new")
    worker.fold(("ann", "new"))  # it dies before it has refolded the item
    successor = Worker(worker.settings, redis_shards=worker.settings.redis_shards)
    successor.maintain()
    assert successor.item("new")[b"as_of"] == b"1"
    successor.close()
