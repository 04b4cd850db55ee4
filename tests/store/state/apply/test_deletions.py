"""Applies deletions to a real Redis: their cost, and which records they outdate."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from core.deletions import (
    DeletionRecord,
    IdHasher,
    Kind,
    Place,
    decode_record,
    encode_record,
    parse_place,
)
from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Interaction
from store.state import connection, keys
from store.state.apply import deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from tests.support import NoLaterEvents

HASHER = IdHasher(SecretStr("salt"))
EARLIER = 200_000


def entry(
    kind: Kind,
    identifier: str,
    offset: int,
    value: bytes | None,
    topic_id: str | None = "t",
    time: float = 0.0,
) -> Entry:
    return Entry(
        kind,
        HASHER(kind, identifier),
        identifier,
        Place(time or 100.0 + offset, 0, offset, topic_id),
        value,
    )


class Entries:
    """Applies batches of entries of one partition."""

    def __init__(self, settings: Settings) -> None:
        planner = Planner(settings.use_cases)
        self.published: list[tuple[Kind, str, Place]] = []
        self.applier = EntryApplier(
            connection.connect(settings), planner, 50, self.published.extend, NoLaterEvents()
        )
        self.at = 0

    def apply(self, *entries: Entry, first: int | None = None) -> None:
        first = self.at if first is None else first
        self.at = first + len(entries)
        self.applier.apply(EntryBatch(OffsetRange("users", 0, first, self.at), list(entries)))


@pytest.fixture
def entries(settings: Settings, redis: Redis) -> Entries:
    deletions.mark_ready(redis)
    return Entries(settings)


def _work(redis: Redis) -> tuple[int, int]:
    """Commands and sent bytes of Redis so far, without those of this call."""
    stats: Any = redis.info("stats")
    return stats["total_commands_processed"], stats["total_net_output_bytes"]


def test_a_deletion_and_an_event_cost_the_same_after_200_000_deletions(
    settings: Settings, redis: Redis, entries: Entries
) -> None:
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, 50, HASHER)
    at = 0

    def cost() -> tuple[int, int]:
        """Of one deletion, of an event of that time, and of a later event."""
        nonlocal at
        before = _work(redis)
        entries.apply(entry("user", f"user-{at}", entries.at, None))
        for time in (100.0, 1e9):
            applier.apply(
                planner.plan(
                    OffsetRange("t", 0, at, at + 1),
                    [Event(Interaction(f"e{at}", "42", "i", "view", 1.0), time)],
                    UNKNOWN_DELETIONS,
                )
            )
            at += 1
        after = _work(redis)
        return after[0] - before[0], after[1] - before[1]

    def least() -> tuple[int, int]:
        """Of five: now and then an apply also looks at the server itself, which is not counted."""
        commands, sent = zip(*(cost() for _ in range(5)), strict=True)
        return min(commands), min(sent)

    few = least()
    pipe = redis.pipeline(transaction=False)
    for number in range(EARLIER):
        pipe.hset(
            keys.ONLY.users_deleted,
            HASHER("user", f"earlier-{number}"),
            Place(50.0, 0, number, "t").text(),
        )
    pipe.execute()
    many = least()
    assert many[0] == few[0], "commands"
    assert many[1] < few[1] + 200, "bytes: only digits may be more"
    applier.close()


def test_a_record_before_a_deletion_is_dead_and_one_after_it_counts(
    redis: Redis, entries: Entries
) -> None:
    records = [
        entry("user", "42", 0, b"old"),
        entry("user", "42", 1, None),
        entry("user", "42", 2, b"new"),
    ]
    entries.apply(*records)
    assert redis.get("user:42:profile") == b"new"
    redis.hset("ingest:users:0", "position", 0)
    entries.apply(records[0], first=0)  # replayed in other batches
    assert redis.get("user:42:profile") == b"new", "the older value is dead"
    entries.apply(records[1])
    assert redis.get("user:42:profile") == b"new", "a known deletion changes nothing"
    entries.apply(records[2])
    assert redis.get("user:42:profile") == b"new"
    assert len(entries.published) == 1


def test_records_of_the_same_millisecond_are_in_the_order_of_the_log(
    redis: Redis, entries: Entries
) -> None:
    values = (b"1", None, b"2")
    entries.apply(
        *[entry("item", "a", offset, value, time=7.0) for offset, value in enumerate(values)]
    )
    assert redis.hget("items", "a") == b"2"


def test_records_of_a_recreated_topic_are_compared_by_time(redis: Redis, entries: Entries) -> None:
    entries.apply(entry("item", "a", 50, None, "former", time=500.0))
    entries.apply(entry("item", "a", 1, b"older", "new", time=400.0))
    assert redis.hget("items", "a") is None
    entries.apply(entry("item", "a", 2, b"younger", "new", time=600.0))
    assert redis.hget("items", "a") == b"younger"


def test_no_deleted_event_returns_when_the_broker_clock_is_set_back() -> None:
    first, second = Place(200.0, 0, 1, "t"), Place(150.0, 0, 2, "t")
    assert second.later(first) == Place(200.0, 0, 2, "t")
    assert parse_place(second.text().encode()) == second
    assert parse_place(Place(1.5).text().encode()) == Place(1.5)


def test_deletions_of_an_older_release_are_converted_and_still_count(
    settings: Settings, redis: Redis
) -> None:
    redis.hset("users:deleted", mapping={"alice": "20.5", "bob": "30.5"})
    redis.set("users:deleted:version", 2)
    deletions.prepare(redis, HASHER)
    deletions.mark_ready(redis)
    assert deletions.lookup(
        redis, "user", [HASHER("user", name) for name in ("alice", "bob", "eve")]
    ) == [Place(20.5), Place(30.5), None]
    assert b"alice" not in redis.hkeys("users:deleted")
    assert not redis.exists("users:deleted:version")
    assert deletions.state(redis).newest == 30.5
    assert deletions.users([redis], HASHER).time_of("bob") == 30.5


def test_another_salt_is_refused(settings: Settings, redis: Redis) -> None:
    deletions.prepare(redis, HASHER)
    with pytest.raises(ConfigurationError, match="DELETION_SALT is not the one"):
        deletions.prepare(redis, IdHasher(SecretStr("another")))


def test_an_earlier_deletion_that_is_published_later_does_not_replace_the_newer_one() -> None:
    """The topic is compacted by key, and a frozen process may publish late."""
    early, late = (
        encode_record(
            DeletionRecord(
                kind="user",
                digest=HASHER("user", "42"),
                place=Place(10.0 + offset, 0, offset, "t"),
                salt="salt",
            )
        )
        for offset in (1, 2)
    )
    assert early[0] != late[0]
    assert [decode_record(*record, HASHER).digest for record in (early, late)] == [
        HASHER("user", "42")
    ] * 2


def test_an_old_deletion_is_forgotten_unless_its_id_was_deleted_again_meanwhile(
    redis: Redis, entries: Entries
) -> None:
    entries.apply(entry("user", "42", 0, None), entry("user", "43", 1, None))
    old = dict(deletions.scan(redis, "user"))
    entries.apply(entry("user", "43", 2, None))
    deletions.forget(redis, "user", old)
    assert dict(deletions.scan(redis, "user")) == {HASHER("user", "43"): Place(102.0, 0, 2, "t")}
