"""What a live worker writes: vectors that are the fold-in of the history, factors of new items,
nothing of the deleted. Without Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from redis import Redis
from threadpoolctl import threadpool_limits

from core.settings import Settings
from core.types import HistoryEvent
from engines import fold
from store.state import keys
from store.state.apply import deletions
from store.state.connection import connect
from store.state.entities.users import history_event, history_line
from store.state.entities.vectors import LiveStore
from streams.live.fold import Folder
from streams.live.model import Space
from streams.live.new_items import NewItemFolder
from tests.live.world import is_fresh, model
from tests.support import delete_user

HISTORY = [
    ("like", None, "item-1"),
    ("view", None, "item-2"),
    ("like", None, "item-1"),
    ("rating", 4.5, "item-3"),
    ("rating", 0.0, "item-4"),
    ("view", None, "nobody knows it"),
    ("gone_type", None, "item-5"),
    ("dismiss", None, "item-6"),
]


def remember(redis: Redis, user_id: str, *items: str, times: int = 1) -> None:
    """Likes of `items` as ingest leaves them."""
    for item in items * times:
        redis.hincrby(keys.user(user_id), "events", 1)
        redis.rpush(keys.history(user_id), history_line(1.7e9, "like", None, item))


class World:
    """A worker's parts over the test's Redis."""

    def __init__(self, settings: Settings, seed: int = 1, **changed: int) -> None:
        self.settings = settings.model_copy(update=changed)
        client = connect(self.settings)
        self.store = LiveStore(client, self.settings.history_cap, self.settings.young_item_users)
        self.folder = Folder(self.settings, self.store)
        self.new_items = NewItemFolder(self.settings, client, self.store, self.folder)
        self.space = Space(f"version-{seed}", 0.0, model(seed), self.settings)

    def tend(self) -> None:
        """All new items, as the leader does, and those due at once."""
        for chunk in self.new_items.overdue(self.space):
            self.new_items.tend(self.space, chunk)
        self.new_items._not_before.clear()
        while self.new_items.due():
            self.new_items.refold(self.space)


@pytest.fixture
def world(settings: Settings, redis: Redis) -> Iterator[World]:
    deletions.mark_ready(redis)
    made = World(settings)
    yield made
    made.store.close()


def test_a_vector_is_what_implicit_makes_of_the_same_history(world: World) -> None:
    space = world.space
    lines = [history_line(1.7e9, kind, value, item).encode() for kind, value, item in HISTORY]
    weights = space.lines.matrix([lines])
    found = space.model.fold_in_many(weights)[0]
    with threadpool_limits(1):  # implicit warns of BLAS threads
        reference = AlternatingLeastSquares(
            factors=space.model.factors,
            regularization=space.model.regularization,
            alpha=space.model.alpha,
        )
    reference.item_factors = space.model.item_factors
    reference.user_factors = np.zeros((1, space.model.factors), dtype=np.float32)
    expected = reference.recalculate_user(np.array([0]), sp.csr_matrix(weights))
    np.testing.assert_allclose(found, np.ravel(expected), rtol=1e-4, atol=1e-6)


def test_long_and_short_histories_of_one_batch_are_solved_alike(settings: Settings) -> None:
    """Long ones one by one, short ones together: which is which shows in nothing but the time."""
    space = Space("version-1", 0.0, model(1, items=900), settings)
    assert space.model.factors * 900 > fold._ONE_BY_ONE > space.model.factors * 500
    histories = [
        [history_line(1.7e9, "like", None, f"item-{row}").encode() for row in range(count)]
        for count in (900, 3, 0, 560, 700, 1)
    ]
    vectors, counted = space.lines.vectors(histories)
    expected = space.model.fold_in_many(space.lines.matrix(histories))
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    assert counted.tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize("spaces", [False, True])
@pytest.mark.parametrize("time", [0, 7.0, 12345.0, 999999999.5, 1.7e9, 253402300799.0, None])
def test_weights_from_lines_are_those_of_the_events(
    world: World, time: float | None, spaces: bool
) -> None:
    items = [
        "item-1",
        "item-2",
        "x",
        "item=4",
        "item-39",
        *(["item 3", "like item-2", " "] if spaces else []),
    ]
    kinds = [
        ("view", None),
        ("like", None),
        ("rating", 4.5),
        ("rating", 1 / 3),
        ("dismiss", None),
        ("gone_type", None),
        ("gone_type", 2.0),
    ]
    times = [12345.0, 1.7e9, 7.0, 1.8e9] if time is None else [time]
    lines = [
        history_line(time, kind, value, item).encode()
        for item in items
        for kind, value in kinds
        for time in times
    ] * 3
    histories = [lines, [], lines[:1], lines[::2]]
    events: list[list[HistoryEvent]] = [
        [history_event(line) for line in history] for history in histories
    ]
    expected = fold.matrix(world.space.model, world.settings.use_cases, events)
    for _ in range(2):  # the second time from memory
        assert (abs(world.space.lines.matrix(histories) - expected)).nnz == 0


@pytest.mark.parametrize(
    "line",
    [
        b"yesterday",
        b"1700000000",
        b"1700000000 view",
        b"view item-1",
        b"170000000012 view",
        b"17 like=x item-1",
    ],
)
def test_a_line_that_is_no_event_is_refused(world: World, line: bytes) -> None:
    good = history_line(1.7e9, "like", None, "item-1").encode()
    for _ in range(2):
        with pytest.raises(ValueError):
            world.space.lines.matrix([[good, line, good]])
    assert world.space.lines.matrix([[good]]).nnz == 1


def test_ten_events_of_a_user_in_one_batch_all_count(world: World, redis: Redis) -> None:
    remember(redis, "ann", *(f"item-{row}" for row in range(10)))
    world.folder.fold(world.space, [("ann", f"item-{row}") for row in range(10)])
    assert is_fresh(redis, world.settings, world.space.model, "ann")
    assert redis.hget(keys.user_als("ann"), "as_of") == b"10"
    assert world.folder.folded == 1


def test_only_the_latest_events_count_beyond_the_cap(settings: Settings, redis: Redis) -> None:
    world = World(settings, history_cap=50)
    remember(redis, "ann", "item-1", times=60)
    remember(redis, "ann", "item-2", times=49)
    world.folder.fold(world.space, [("ann", "item-2")])
    assert redis.hget(keys.user_als("ann"), "as_of") == b"109"
    assert is_fresh(redis, world.settings, world.space.model, "ann")


def test_users_are_folded_in_in_parts(settings: Settings, redis: Redis) -> None:
    world = World(settings, live_batch_users=7)
    names = [f"user-{number}" for number in range(20)]
    for number, name in enumerate(names):
        remember(redis, name, f"item-{number}", "item-0")
    world.folder.fold(world.space, [(name, "item-0") for name in names * 2])
    assert all(is_fresh(redis, world.settings, world.space.model, name) for name in names)


def test_a_vector_of_another_bundle_says_so(world: World, settings: Settings, redis: Redis) -> None:
    remember(redis, "ann", "item-1")
    world.folder.fold(world.space, [("ann", "item-1")])
    other = World(settings, seed=2)
    assert not is_fresh(redis, settings, other.space.model, "ann")
    other.folder.fold(other.space, [("ann", "item-1")])
    assert is_fresh(redis, settings, other.space.model, "ann")


def test_a_user_deleted_while_being_folded_in_leaves_nothing(
    world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading and the writing the user is deleted and comes back with as many events as
    before, other ones.
    """
    remember(redis, "ann", "item-1", "new")
    read, reads = world.store.read, []

    def deleting(user_ids: list[str]) -> object:
        seen = read(user_ids)
        if not reads:
            delete_user(world.settings, "ann", 1.0, 0)
            remember(redis, "ann", "item-7", "item-8")
        reads.append(user_ids)
        return seen

    monkeypatch.setattr(world.store, "read", deleting)
    world.folder.fold(world.space, [("ann", "item-1"), ("ann", "new")])
    assert len(reads) == 2
    assert is_fresh(redis, world.settings, world.space.model, "ann")
    assert not redis.exists(keys.item_users("new"))


def test_a_lost_connection_never_leaves_a_write_unguarded(world: World, redis: Redis) -> None:
    remember(redis, "ann", "item-1")
    world.store.read(["ann"])
    world.store.close()
    assert not world.store.write({})


def test_a_new_item_gets_factors_from_who_touched_it(world: World, redis: Redis) -> None:
    for name, items in {
        "ann": ["item-1", "new"],
        "bob": ["item-2", "item-3", "new", "new"],
        "eve": ["new"],
    }.items():
        remember(redis, name, *items)
    world.new_items.note(
        world.folder.fold(
            world.space, [("ann", "new"), ("bob", "new"), ("eve", "new"), ("bob", "item-2")]
        )
    )
    world.new_items.refold(world.space)
    held, space = redis.hgetall(keys.item_als("new")), world.space
    assert redis.zrange(keys.item_users("new"), 0, -1, withscores=True) == [
        (b"ann", 3.0),
        (b"eve", 3.0),
        (b"bob", 6.0),
    ]
    assert (held[b"made_with"].decode(), held[b"as_of"]) == (space.made_with, b"3")
    vectors = np.stack(
        [
            np.frombuffer(redis.hget(keys.user_als(name), "vector"), dtype="<f4")
            for name in ("ann", "bob")
        ]
    )
    expected = space.model.fold_items_in(
        sp.csr_matrix(np.array([[3, 6]], dtype=np.float32)), vectors
    )[0]
    np.testing.assert_allclose(
        np.frombuffer(held[b"vector"], dtype="<f4"), expected, rtol=1e-4, atol=1e-6
    )
    assert [fields for _, fields in redis.xrange(keys.NEW_ITEM_CHANGES)] == [{b"item": b"new"}]
    assert redis.zrange(keys.NEW_ITEMS, 0, -1) == [b"new"]


def test_a_user_s_vector_never_holds_a_new_item(world: World, redis: Redis) -> None:
    remember(redis, "ann", "item-1", "new")
    world.new_items.note(world.folder.fold(world.space, [("ann", "new")]))
    world.new_items.refold(world.space)
    assert is_fresh(redis, world.settings, world.space.model, "ann")


def test_a_hint_of_what_the_history_does_not_hold_lists_nobody(world: World, redis: Redis) -> None:
    remember(redis, "ann", "item-1")
    world.folder.fold(world.space, [("ann", "invented"), ("nobody", "invented")])
    assert not redis.exists(keys.item_users("invented"), keys.NEW_ITEMS, keys.user_als("nobody"))


def test_an_item_s_list_keeps_the_users_of_largest_weight(settings: Settings, redis: Redis) -> None:
    world = World(settings, young_item_users=2)
    for number, name in enumerate(("ann", "bob", "eve"), 1):
        remember(redis, name, "new", times=number)
    world.folder.fold(world.space, [(name, "new") for name in ("eve", "bob", "ann")])
    assert redis.zrange(keys.item_users("new"), 0, -1) == [b"bob", b"eve"]


def test_the_least_recently_touched_new_items_make_room(settings: Settings, redis: Redis) -> None:
    world = World(settings, young_items=2)
    for number in range(4):
        remember(redis, "ann", "item-1", f"new-{number}")
        world.new_items.note(world.folder.fold(world.space, [("ann", f"new-{number}")]))
    world.tend()
    assert sorted(redis.keys("item:*:als")) == [b"item:new-2:als", b"item:new-3:als"]
    assert sorted(redis.keys("item:*:users")) == [b"item:new-2:users", b"item:new-3:users"]


def test_a_bundle_that_knows_the_item_ends_its_youth(
    world: World, settings: Settings, redis: Redis
) -> None:
    remember(redis, "ann", "item-1", "item-45", "item-46")
    world.new_items.note(world.folder.fold(world.space, [("ann", "item-45"), ("ann", "item-46")]))
    world.new_items.refold(world.space)
    world.space = Space("version-2", 0.0, model(2, items=46), settings)
    world.tend()
    assert redis.zrange(keys.NEW_ITEMS, 0, -1) == [b"item-46"]
    assert not redis.exists(keys.item_als("item-45"), keys.item_users("item-45"))
    assert redis.hget(keys.item_als("item-46"), "made_with") == world.space.made_with.encode()
    assert is_fresh(redis, settings, world.space.model, "ann")


def test_deleted_users_leave_the_lists_of_new_items(world: World, redis: Redis) -> None:
    for name in ("ann", "bob"):
        remember(redis, name, "item-1", "new")
    remember(redis, "ann", "hers alone")
    world.new_items.note(
        world.folder.fold(world.space, [("ann", "new"), ("bob", "new"), ("ann", "hers alone")])
    )
    world.tend()
    delete_user(world.settings, "ann", 1.0, 0)
    world.tend()
    assert redis.zrange(keys.item_users("new"), 0, -1) == [b"bob"]
    assert redis.hget(keys.item_als("new"), "as_of") == b"1"
    assert not redis.exists(keys.item_users("hers alone"), keys.item_als("hers alone"))
    assert redis.zrange(keys.NEW_ITEMS, 0, -1) == [b"new"]
    assert not list(redis.scan_iter("*ann*"))


def test_what_a_dead_worker_left_is_found(world: World, settings: Settings, redis: Redis) -> None:
    remember(redis, "ann", "item-1", "new")
    world.folder.fold(world.space, [("ann", "new")])  # and dies before it has refolded the item
    heir = World(settings)
    heir.tend()
    assert redis.hget(keys.item_als("new"), "as_of") == b"1"


def test_a_user_s_count_is_read_before_the_history(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way round, an event applied between would make a vector that lacks it and says that
    it holds it.
    """
    asked: list[str] = []
    ask = world.store._ask

    def noting(what: str, commands: list[tuple[str, ...]]) -> object:
        asked.extend(command[0] for command in commands)
        return ask(what, commands)

    monkeypatch.setattr(world.store, "_ask", noting)
    world.store.read(["ann", "bob"])
    assert asked == ["WATCH", "HGET", "LRANGE", "HGET", "LRANGE"]
