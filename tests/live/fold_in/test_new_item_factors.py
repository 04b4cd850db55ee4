"""Factors of new items: computed from their users, kept up to date, removed with their users."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from redis import Redis

from core.settings import Settings
from store.state import keys
from streams.live import new_items
from streams.live.model import Space
from tests.live.parts import Worker, add_likes
from tests.live.world import is_fresh, model
from tests.support import delete_user


@pytest.fixture(autouse=True)
def _due_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed item is due without a delay after its last refold."""
    monkeypatch.setattr(new_items, "LEAST_S", 0.0)
    monkeypatch.setattr(new_items, "PER_USER_S", 0.0)


def test_a_new_item_gets_factors_from_its_users(worker: Worker, redis: Redis) -> None:
    for name, items in {
        "ann": ["item-1", "new"],
        "bob": ["item-2", "item-3", "new", "new"],
        "eve": ["new"],
    }.items():
        add_likes(redis, name, *items)
    worker.fold(("ann", "new"), ("bob", "new"), ("eve", "new"), ("bob", "item-2"))
    worker.new_items.refold(worker.space)
    stored, space = redis.hgetall(keys.ONLY.item_als("new")), worker.space
    assert redis.zrange(keys.ONLY.item_users("new"), 0, -1, withscores=True) == [
        (b"ann", 3.0),
        (b"eve", 3.0),
        (b"bob", 6.0),
    ]
    assert (stored[b"made_with"].decode(), stored[b"as_of"]) == (space.made_with, b"3")
    vectors = np.stack(
        [
            np.frombuffer(redis.hget(keys.ONLY.user_als(name), "vector"), dtype="<f4")
            for name in ("ann", "bob")
        ]
    )
    expected = space.model.fold_items_in(
        sp.csr_matrix(np.array([[3, 6]], dtype=np.float32)), vectors
    )[0]
    np.testing.assert_allclose(
        np.frombuffer(stored[b"vector"], dtype="<f4"), expected, rtol=1e-4, atol=1e-6
    )
    assert [fields for _, fields in redis.xrange(keys.ONLY.new_item_changes)] == [{b"item": b"new"}]
    assert redis.zrange(keys.ONLY.new_items, 0, -1) == [b"new"]


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


def test_above_the_limit_the_least_recently_touched_new_items_are_forgotten(
    settings: Settings, redis: Redis
) -> None:
    worker = Worker(settings, young_items=2)
    for number in range(4):
        add_likes(redis, "ann", "item-1", f"new-{number}")
        worker.fold(("ann", f"new-{number}"))
    worker.maintain()
    assert sorted(redis.keys("item:*:als")) == [b"item:new-2:als", b"item:new-3:als"]
    assert sorted(redis.keys("item:*:users")) == [b"item:new-2:users", b"item:new-3:users"]


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


def test_deleted_users_are_removed_from_the_lists_of_new_items(
    worker: Worker, redis: Redis
) -> None:
    for name in ("ann", "bob"):
        add_likes(redis, name, "item-1", "new")
    add_likes(redis, "ann", "her item")
    worker.fold(("ann", "new"), ("bob", "new"), ("ann", "her item"))
    worker.maintain()
    delete_user(worker.settings, "ann", 1.0, 0)
    worker.maintain()
    assert redis.zrange(keys.ONLY.item_users("new"), 0, -1) == [b"bob"]
    assert redis.hget(keys.ONLY.item_als("new"), "as_of") == b"1"
    assert not redis.exists(keys.ONLY.item_users("her item"), keys.ONLY.item_als("her item"))
    assert redis.zrange(keys.ONLY.new_items, 0, -1) == [b"new"]
    assert not list(redis.scan_iter("*ann*"))


def test_another_worker_completes_the_work_of_a_dead_one(
    worker: Worker, settings: Settings, redis: Redis
) -> None:
    add_likes(redis, "ann", "item-1", "new")
    worker.fold(("ann", "new"))  # it dies before it has refolded the item
    successor = Worker(settings)
    successor.maintain()
    assert redis.hget(keys.ONLY.item_als("new"), "as_of") == b"1"
