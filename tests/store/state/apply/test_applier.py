"""Applies batches to a real Redis: what an operator reads, and which keys an error names."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from redis import Redis

from core.deletions import IdHasher
from core.errors import Stale, StoreCorrupt
from core.settings import Settings
from core.types import Interaction
from store.state import connection, keys
from store.state.apply import deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.pending import Mark, PendingPopularity
from store.state.apply.planner import Planner
from store.state.entities import popularity, users

CAP = 50
HASHER = IdHasher(SecretStr("salt"))


@pytest.fixture
def redis(redis: Redis) -> Redis:
    """An empty Redis with complete deletions: there are none."""
    deletions.mark_ready(redis)
    return redis


def _apply(settings: Settings, events: list[Interaction]) -> None:
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, CAP, HASHER)
    pending = PendingPopularity(settings.use_cases, settings.popularity_half_life_days, Mark())
    for offset, event in enumerate(events):
        pending.add(offset, event, 1.77e9)
    offsets = OffsetRange("t", 0, 0, len(events))
    stamped = [Event(event, 1.0) for event in events]
    piece = pending.piece(offsets.next, whole=True)
    applier.apply(planner.plan(offsets, stamped, UNKNOWN_DELETIONS, piece))
    applier.close()


def test_an_operator_reads_counters_history_and_popularity_as_plain_text(
    settings: Settings, redis: Redis
) -> None:
    like = Interaction("e1", "42", "startup-9", "like", 1732340000.9, None, "developer_startup")
    rating = Interaction("e2", "42", "2571", "rating", 1732340001.0, 4.5)
    _apply(settings, [like, rating])
    assert redis.hgetall("user:42") == {
        b"events": b"2",
        b"ev:like": b"1",
        b"ev:rating": b"1",
        b"first_seen": b"1732340000",
    }
    assert redis.lrange("user:42:history", 0, -1) == [
        b"1732340000 like startup-9",
        b"1732340001 rating=4.5 2571",
    ]
    assert redis.zrange("popular:developer_startup", 0, -1) == [b"startup-9"]
    assert redis.hget("ingest:t:0", "position") == b"2"


def test_no_user_id_gives_the_key_of_another_user() -> None:
    assert keys.ONLY.user("42:history") != keys.ONLY.history("42")
    assert keys.ONLY.user("42%3Ahistory") != keys.ONLY.user("42:history")


def test_a_history_is_trimmed_to_its_cap(settings: Settings, redis: Redis) -> None:
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, CAP, HASHER)
    for first in range(0, 400, 20):
        events = [
            Event(Interaction(f"{at}", "42", f"i{at}", "view", float(at)), 1.0)
            for at in range(first, first + 20)
        ]
        applier.apply(
            planner.plan(OffsetRange("t", 0, first, first + 20), events, UNKNOWN_DELETIONS)
        )
    applier.close()
    assert redis.llen("user:42:history") < CAP + CAP // 8 + 16 + 20
    state = users.read(redis, "42", CAP)
    assert [line.item_id for line in state.history] == [f"i{at}" for at in range(350, 400)]
    assert state.events == 400


def test_an_error_names_the_key_of_a_foreign_type(settings: Settings, redis: Redis) -> None:
    redis.set("user:42", "a foreign value")
    with pytest.raises(StoreCorrupt, match="user:42 answered WRONGTYPE"):
        _apply(settings, [Interaction("e", "42", "i", "view", 1.0)])


def test_an_error_names_a_position_of_a_foreign_type(settings: Settings, redis: Redis) -> None:
    redis.set("ingest:t:0", "a foreign value")
    with pytest.raises(
        StoreCorrupt, match=r"HMGET ingest:t:0 while applying t/0 \[0, 1\): WRONGTYPE"
    ):
        _apply(settings, [Interaction("e", "42", "i", "view", 1.0)])
    assert redis.exists("user:42") == 0


def test_an_emptied_redis_counts_nothing_until_its_deletions_are_recovered(
    settings: Settings, redis: Redis
) -> None:
    """Also where the position matches: the deletions are not known yet."""
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, CAP, HASHER)
    event = Event(Interaction("e", "ada", "startup-1", "like", 1.0), 1.0)
    redis.flushall()
    with pytest.raises(Stale, match="Redis was emptied") as raised:
        applier.apply(planner.plan(OffsetRange("t", 0, 0, 1), [event], UNKNOWN_DELETIONS))
    assert raised.value.position == 0
    assert redis.keys() == []
    deletions.mark_ready(redis)
    applier.apply(planner.plan(OffsetRange("t", 0, 0, 1), [event], UNKNOWN_DELETIONS))
    applier.close()
    assert redis.exists("user:ada") == 1


def test_popularity_halves_in_a_half_life_and_weighs_by_use_case(
    settings: Settings, redis: Redis
) -> None:
    month = 30 * 86400.0
    now = popularity.LANDMARK
    old = Interaction("a", "1", "old", "like", now - month, None, "investor_startup")
    new = Interaction("b", "2", "new", "like", now, None, "investor_startup")
    _apply(settings, [old, new, Interaction("c", "3", "hidden", "dismiss", now)])
    scores = popularity.top(redis, ["investor_startup", "unlabelled"])
    factor = popularity.decay_factor(settings, now)
    assert [(item, score * factor) for item, score in scores["investor_startup"]] == [
        ("new", 3.0),
        ("old", 1.5),
    ]
    assert scores["unlabelled"] == []  # a weight of 0 makes nothing popular
    assert popularity.decay_factor(settings, now + month) == 0.5
