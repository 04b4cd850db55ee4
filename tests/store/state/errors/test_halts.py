"""Checks that a partly applied transaction halts its partition until a rebuild."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import redis as client_library
from redis import Redis

from core.codec import encode_json
from core.deletions import IdHasher, Kind, Place
from core.errors import StoreCorrupt
from core.settings import Settings
from core.types import Interaction, Item, User
from store.state import connection, keys
from store.state.apply import deletions, positions
from store.state.apply.batches import UNKNOWN_DELETIONS, Batch, Event, OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.pending import Mark, PendingPopularity
from store.state.apply.planner import Planner
from store.state.apply.transactions import Transactions
from tests.store.state.errors.writer import NOW, Writer


def _event(settings: Settings, planner: Planner) -> Batch:
    return planner.plan(
        OffsetRange("t", 0, 0, 1),
        [Event(Interaction("e", "42", "startup-9", "like", NOW), NOW)],
        UNKNOWN_DELETIONS,
    )


def _popularity(settings: Settings, planner: Planner) -> Batch:
    pending = PendingPopularity(settings.use_cases, 30.0, Mark())
    pending.add(0, Interaction("e", "42", "startup-9", "like", NOW), NOW)
    events = [Event(Interaction("e", "42", "startup-9", "like", NOW), NOW)]
    return planner.plan(
        OffsetRange("t", 0, 0, 1), events, UNKNOWN_DELETIONS, pending.piece(1, whole=True)
    )


def _item(settings: Settings, _planner: Planner) -> EntryBatch:
    return EntryBatch(
        OffsetRange("t", 0, 0, 1),
        [
            _entry(
                settings,
                "item",
                "startup-9",
                0,
                encode_json(Item(item_id="startup-9", item_type="startup")),
            )
        ],
    )


def _deletion(settings: Settings, _planner: Planner) -> EntryBatch:
    profile = _entry(settings, "user", "7", 0, encode_json(User(user_id="7")))
    return EntryBatch(OffsetRange("t", 0, 0, 2), [profile, _entry(settings, "user", "42", 1, None)])


def _entry(
    settings: Settings, kind: Kind, identifier: str, offset: int, value: bytes | None
) -> Entry:
    return Entry(
        kind,
        IdHasher(settings.deletion_salt)(kind, identifier),
        identifier,
        Place(2.0, 0, offset, "t"),
        value,
    )


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("user:42", _event),
        ("user:42:history", _event),
        ("popular:unlabelled", _popularity),
        ("items", _item),
        ("items:changes", _item),
        ("users:deleted", _deletion),
        ("ingest:t:0", _event),
    ],
)
def test_a_foreign_key_halts_the_partition_until_a_rebuild(
    key: str, make: object, refusing_redis: Redis, settings: Settings
) -> None:
    """Neither a restart nor the deletion of the foreign key lets ingest continue with a part
    missing.
    """
    writer = Writer(settings)
    refusing_redis.set(key, "a foreign value")
    error = writer.error(make(settings, writer.planner))  # type: ignore[operator]
    assert isinstance(error, StoreCorrupt)
    assert key in str(error)
    assert "WRONGTYPE" in str(error)
    for _ in range(2):
        with pytest.raises(StoreCorrupt) as refused:
            positions.take(refusing_redis, "t", 0)
        assert key in str(refused.value)
        assert "rebuild --wipe" in str(refused.value)
        refusing_redis.delete(key)
    for raw in refusing_redis.scan_iter():
        if any(fnmatch(raw.decode(), pattern) for pattern in keys.ONLY.owned):
            refusing_redis.delete(raw)
    assert positions.take(refusing_redis, "t", 0).offset == 0
    deletions.mark_ready(refusing_redis)
    writer.apply(make(settings, writer.planner))  # type: ignore[operator]
    writer.applier.close()
    assert positions.take(refusing_redis, "t", 0).offset > 0


@pytest.mark.parametrize("value", ["seventeen", "9223372036854775807"])
def test_a_counter_that_is_no_number_halts_the_partition(
    value: str, refusing_redis: Redis, settings: Settings
) -> None:
    writer = Writer(settings)
    refusing_redis.hset("user:42", "events", value)
    assert isinstance(writer.error(writer.event(0)), StoreCorrupt)
    with pytest.raises(StoreCorrupt, match="HINCRBY user:42"):
        positions.take(refusing_redis, "t", 0)


def test_a_process_that_dies_before_the_reply_leaves_the_note_of_the_halt(
    refusing_redis: Redis, settings: Settings
) -> None:
    """The note with the offsets is part of the transaction; the name of the key is added later."""
    writer = Writer(settings)
    batch = writer.event(0)
    refusing_redis.set("user:42:history", "a foreign value")
    with connection.connect(settings) as client:
        transactions = Transactions(client)
        transactions.run([batch.offsets], batch.payload, batch.replies, "testing")
        transactions.close()
    assert positions.read(refusing_redis, "t", 0).offset == 1, (
        "Redis does not undo the other commands"
    )
    with pytest.raises(StoreCorrupt, match=r"offsets \[0, 1\)"):
        positions.take(refusing_redis, "t", 0)


def test_errors_of_other_clients_do_not_halt_a_partition(
    refusing_redis: Redis, settings: Settings
) -> None:
    writer = Writer(settings)
    for first in range(3):
        with pytest.raises(client_library.ResponseError):
            refusing_redis.execute_command("HSET", "too few")
        writer.applier.apply(writer.event(first))
    writer.applier.close()
    assert not refusing_redis.exists(keys.ONLY.halted)
