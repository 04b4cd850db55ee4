"""Live workers fold in who is being read, and rest otherwise; reads fold in all others."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from redis import Redis

from core.errors import StoreMisconfigured
from core.settings import Settings
from store.log.producer import Producer
from store.state import keys, read_users
from store.state.read_users import ReadUsers
from store.state.shards import Shards
from streams.live.model import Space
from streams.live.share import GATHER_S, MOST_REST_S, ROUND_S, WorkShare
from testing.redis import RedisServer
from tests.api.world import FOR_DEVELOPER, serving
from tests.conftest import Spawn
from tests.live.parts import SHARDED, Worker, add_likes
from tests.live.processes import live_and_ingest
from tests.live.world import event, is_fresh, live_model
from tests.support import delete_user, eventually


@pytest.fixture
def worker(settings: Settings, worker: Worker) -> Worker:
    """A worker that folds in who was read in the last 100 seconds."""
    return Worker(settings, live_read_s=100.0, redis_shards=worker.settings.redis_shards)


@pytest.fixture
def shards(settings: Settings) -> Iterator[Shards]:
    """The clients with which the API notes reads."""
    with Shards(settings) as shards:
        yield shards


def read(redis: Redis, *user_ids: str, seconds_ago: float = 0.0) -> None:
    """Note reads of these users as the API does."""
    redis.zadd(keys.ONLY.users_read, dict.fromkeys(user_ids, time.time() - seconds_ago))


def has_vector(redis: Redis, user_id: str) -> bool:
    return bool(redis.exists(keys.ONLY.user_als(user_id)))


def test_only_users_who_are_being_read_are_folded_in_ahead(worker: Worker, redis: Redis) -> None:
    for name in ("ann", "bob", "eve"):
        add_likes(redis, name, "item-1")
    read(redis, "ann")
    read(redis, "bob", seconds_ago=101)
    worker.fold(("ann", "item-1"), ("bob", "item-1"), ("eve", "item-1"))
    assert is_fresh(redis, worker.settings, worker.space.model, "ann")
    assert not has_vector(redis, "bob")
    assert not has_vector(redis, "eve")


def test_users_of_a_new_item_are_folded_in_although_nobody_reads_them(
    worker: Worker, redis: Redis
) -> None:
    add_likes(redis, "ann", "item-1", "new")
    worker.fold(("ann", "new"), ("ann", "item-1"))
    worker.maintain()
    assert is_fresh(redis, worker.settings, worker.space.model, "ann")
    assert redis.hget(keys.ONLY.item_als("new"), "as_of") == b"1"


@pytest.mark.parametrize("reached", [True, False])
def test_the_users_read_last_come_first_and_none_after_the_time(
    worker: Worker, redis: Redis, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    monkeypatch.setattr("streams.live.fold._STEP", 2)
    names = [f"user-{number}" for number in range(4)]
    for number, name in enumerate(names):
        add_likes(redis, name, "item-1")
        read(redis, name, seconds_ago=number)
    add_likes(redis, "ann", "item-1", "new")
    pairs = [("ann", "new"), *((name, "item-1") for name in reversed(names))]
    fold_users, batches = worker.users.fold_users, list[list[str]]()

    def fold_and_record(space: Space, user_ids: list[str], *weights: object) -> object:
        batches.append(list(user_ids))
        return fold_users(space, user_ids, *weights)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.users, "fold_users", fold_and_record)
    until = float("inf") if reached else time.perf_counter()
    assert worker.users.fold(worker.space, pairs, until) == ["new"]
    assert batches == [["ann"], *([names[:2], names[2:]] if reached else [])]


def test_a_user_who_is_read_without_a_fresh_vector_gets_one_before_the_next_event(
    worker: Worker, redis: Redis
) -> None:
    model = worker.space.model
    for name in ("ann", "bob"):
        add_likes(redis, name, "item-1")
    began = time.time()
    read(redis, "ann", "nobody")
    worker.users.fold_readers(worker.space, began - 1)
    assert is_fresh(redis, worker.settings, model, "ann")
    assert not has_vector(redis, "bob")
    assert not has_vector(redis, "nobody")
    worker.users.fold_readers(worker.space, began - 1)
    assert worker.users.folded == 1, "a fresh vector is not made again"
    add_likes(redis, "ann", "item-2")
    worker.users.fold_readers(worker.space, began - 1)
    assert is_fresh(redis, worker.settings, model, "ann")


@SHARDED
def test_who_is_read_is_folded_in_the_latest_first_in_whatever_shard(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the note that the API writes to the order in which the live worker folds in."""
    names, began = ["ann", "cat", "eve", "bob"], time.time()
    for name in (*names, "dan"):
        worker.add_likes(name, "item-1")
    for number, name in enumerate(names):
        notes = ReadUsers(remember_s=100.0)
        notes.add(name)
        monkeypatch.setattr(read_users.time, "time", lambda: began + number)  # noqa: B023
        notes.write(worker.clients)
    monkeypatch.undo()
    order = list(reversed(names))
    assert worker.shards.read_since(began - 1) == order
    assert worker.shards.read_since(began + 1.5) == order[:2]
    monkeypatch.setattr("streams.live.fold._STEP", 1)
    worker.fold(*((name, "item-1") for name in (*names, "dan")))
    assert worker.users.folded == 4
    assert all(map(worker.is_fresh, names))
    assert not worker.user("dan")
    worker.add_likes("cat", "item-2")
    assert worker.shards.not_fresh(order, worker.space.made_with) == ["cat"]
    worker.users.fold_readers(worker.space, began - 1)
    assert worker.is_fresh("cat")


def test_a_note_is_written_once_in_a_while_and_expires(
    redis: Redis, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, now = ReadUsers(remember_s=100.0), [1000.0]
    monkeypatch.setattr(read_users.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(read_users.time, "time", lambda: now[0])

    def written(*user_ids: str, at: float) -> dict[bytes, float]:
        now[0] = at
        for user_id in user_ids:
            notes.add(user_id)
        notes.write(shards)
        return dict(redis.zrange(keys.ONLY.users_read, 0, -1, withscores=True))

    assert written("ann", "ann", "bob", at=1000) == {b"ann": 1000, b"bob": 1000}
    assert written("ann", at=1010) == {b"ann": 1000, b"bob": 1000}, "ann was just noted"
    written(at=1030)
    written(at=1060)
    assert written("ann", at=1061) == {b"ann": 1061, b"bob": 1000}
    assert written("eve", at=1101) == {b"ann": 1061, b"eve": 1101}, "bob is read no more"
    assert 0 < redis.ttl(keys.ONLY.users_read) <= 101
    silent = ReadUsers(remember_s=0.0)
    silent.add("joe")
    silent.write(shards)
    assert redis.zscore(keys.ONLY.users_read, "joe") is None


def test_notes_that_redis_refuses_are_dropped(
    settings: Settings, shards: Shards, redis: Redis, redis_server: RedisServer
) -> None:
    notes = ReadUsers(remember_s=100.0)
    for number in range(2 * read_users._CHUNK + 1):
        notes.add(f"user-{number}")
    url = redis_server.url.replace("//", "//reader:any@")
    redis.acl_setuser(
        "reader", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-zadd"]
    )
    try:
        with (
            Shards(settings.model_copy(update={"redis_url": SecretStr(url)})) as reader,
            pytest.raises(StoreMisconfigured),
        ):
            notes.write(reader)
    finally:
        redis.acl_deluser("reader")
    notes.write(shards)
    assert not redis.exists(keys.ONLY.users_read), "their queue does not grow"


def test_a_deletion_removes_the_note(settings: Settings, worker: Worker, redis: Redis) -> None:
    read(redis, "ann", "bob")
    delete_user(settings, "ann", 1.0, 0)
    assert redis.zrange(keys.ONLY.users_read, 0, -1) == [b"bob"]


@pytest.mark.parametrize(("busy_s", "rest_s"), [(0.0, GATHER_S), (0.05, 0.45), (60.0, MOST_REST_S)])
def test_a_worker_rests_in_proportion_to_its_work(busy_s: float, rest_s: float) -> None:
    share = WorkShare(0.1)
    assert share.rest_s(busy_s) == pytest.approx(rest_s)
    assert 0 < share.until() - time.perf_counter() <= 0.1 * ROUND_S
    assert (WorkShare(1.0).rest_s(busy_s), WorkShare(1.0).until()) == (0.0, float("inf"))


@pytest.mark.process
def test_a_read_of_the_api_makes_the_live_worker_follow_that_user(
    settings: Settings, spawn: Spawn, broker: object
) -> None:
    """With four shards: the API notes the read in the user's, where the worker looks."""
    settings = settings.model_copy(update={"redis_shards": 4})
    children = live_and_ingest(settings, spawn, LIVE_READ_S=str(settings.live_read_s))
    model = live_model(settings)

    def send(number: int) -> None:
        with Producer(settings) as producer:
            for name in ("ann", "cat"):
                for item in range(6):
                    producer.interaction(event(name, f"item-{item}", number))

    def is_followed(events: int) -> bool:
        for child in children:
            child.check()
        clients = [(name, shards.of_user(name)) for name in ("ann", "cat")]
        counted = [client.hget(keys.of(client).user(name), "events") for name, client in clients]
        return counted == [b"%d" % events] * 2 and is_fresh(clients[0][1], settings, model, "ann")

    send(1)
    with serving(settings) as api, Shards(settings) as shards:
        eventually(
            lambda: api.get(f"{FOR_DEVELOPER}/ann").json()["interaction_count"] == 6,
            "counted",
            60.0,
        )
        eventually(lambda: is_followed(6), "a vector of the user who is read", 60.0)
        send(2)
        eventually(lambda: is_followed(12), "and one after the next events", 60.0)
        cat = shards.of_user("cat")
        assert not cat.exists(keys.of(cat).user_als("cat"))
