"""A dead letter is corrected and sent again once, unless its user or item was deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from core import codec
from core.deletions import IdHasher, Place
from core.errors import BadEvent, RefusedAgain
from core.settings import Settings
from store.dead_letters.corrections import Corrections
from store.dead_letters.letters import Selection, original, read
from store.log import client as log
from store.log import dead_letters
from store.log.message import LogMessage
from store.log.producer import Producer
from store.state import connection, keys, running
from store.state.shards import Shards
from streams.dead_letters.replay import Sending, replay
from streams.ingest.deletions import recovery
from tests.streams.dead_letters.world import BROKER_TIME, VALID, letter_of, write
from tests.topics import messages


def events(settings: Settings) -> list[tuple[dict[str, Any], bytes, dict[str, bytes]]]:
    """Value, key and headers of every event in the log."""
    return [
        (msgspec.json.decode(message.value()), message.key(), dict(message.headers() or ()))
        for message in messages(settings, settings.interactions_topic)
    ]


def test_a_letter_that_a_crashed_ingest_wrote_twice_counts_once(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    letter = letter_of(settings, 1, b"not JSON")
    unknown_type = codec.encode_json({**VALID, "event_type": "teleport"})
    write(settings, letter, letter, letter_of(settings, 2, unknown_type))
    letters = read(settings)
    assert [letter.code for letter in letters.select()] == ["not_json", "unknown_event_type"]
    selected = letters.select(Selection(codes=["not_json"]))
    assert [letter.offset for letter in selected] == [1]


def test_a_replay_sends_each_corrected_letter_once_and_says_where_it_came_from(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    write(
        settings,
        letter_of(settings, 1, codec.encode_json({**VALID, "timestamp": 99_999_999_999})),
        letter_of(settings, 2, b"not JSON"),
        letter_of(settings, 3, b'{"user_id": "u2", "item_id": "i1", "event_type": "view"}'),
    )
    letters = read(settings).select()
    fix = Corrections(fields={"timestamp": 1_790_000_000})
    expected = {"replayed": 2, "not_json": 1}
    assert replay(settings, letters, fix, Sending(dry_run=True)) == expected
    assert replay(settings, letters, fix) == expected
    topic = settings.interactions_topic
    sent = sorted(events(settings), key=lambda event: event[1])
    assert [(event["event_id"], key, headers) for event, key, headers in sent] == [
        ("e1", b"u1", {"replayed_from": f"{topic}:0:1".encode()}),
        (f"replay:{topic}:0:3", b"u2", {"replayed_from": f"{topic}:0:3".encode()}),
    ]
    remaining = read(settings)
    assert [letter.offset for letter in remaining.select()] == [2]
    assert len(remaining.replayed) == 2
    edits = {(topic, 0, 2): codec.encode_json(VALID)}
    assert replay(settings, remaining.select(), Corrections(edits=edits)) == {"replayed": 1}
    assert len(events(settings)) == 3
    assert read(settings).select() == []


def test_an_item_is_sent_again_to_the_topic_of_items(broker: object, settings: Settings) -> None:
    log.ensure_topics(settings)
    write(settings, letter_of(settings, 1, b'{"item_id": "i1"}', topic=settings.items_topic))
    letters = read(settings).select()
    assert replay(settings, letters, Corrections(fields={"item_type": "movie"})) == {"replayed": 1}
    items = messages(settings, settings.items_topic)
    assert [(message.key(), msgspec.json.decode(message.value())) for message in items] == [
        (b"i1", {"item_id": "i1", "item_type": "movie"})
    ]


def test_a_truncated_letter_is_read_again_from_its_topic(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    huge = codec.encode_json({**VALID, "context": {"note": "x" * 600_000}})
    places: list[tuple[int, int]] = []
    with Producer(settings) as producer:
        producer.raw(
            settings.interactions_topic,
            b"u1",
            huge,
            on_delivery=lambda _, message: places.append((message.partition(), message.offset())),
        )
    message = LogMessage(settings.interactions_topic, *places[0], BROKER_TIME, b"u1", huge)
    write(settings, dead_letters.encode(message, BadEvent("too_large", "too large")))
    letters = read(settings).select()
    assert letters[0].truncated
    assert original(settings, letters[0]) == huge
    assert replay(settings, letters, Corrections()) == {"too_large": 1}
    assert replay(settings, letters, Corrections(fields={"context": None})) == {"replayed": 1}


def test_a_letter_older_than_the_deletion_of_its_user_or_item_is_refused(
    broker: object, settings: Settings
) -> None:
    """Sent again it would count as new.

    The ids in the letter count, and the id in the corrected message.
    """
    log.ensure_topics(settings)
    invalid = {**VALID, "timestamp": 99_999_999_999}
    of_u2 = codec.encode_json(invalid | {"user_id": "u2"})
    of_item = LogMessage(settings.items_topic, 0, 2, BROKER_TIME + 2, b"i1", b"not JSON")
    of_u2_key = LogMessage(settings.interactions_topic, 0, 3, BROKER_TIME + 3, b"u2", of_u2)
    write(
        settings,
        letter_of(settings, 1, codec.encode_json(invalid)),
        dead_letters.encode(of_item, BadEvent("not_json", "no")),
        dead_letters.encode(of_u2_key, BadEvent("x", "y")),
    )
    letters = read(settings).select()
    assert len(letters) == 3
    fix = {"timestamp": 1_790_000_000}
    edits = {(settings.items_topic, 0, 2): b'{"item_id":"i1","item_type":"startup"}'}
    corrections = Corrections(fields=fix, edits=edits)
    assert replay(settings, letters, corrections, Sending(dry_run=True)) == {"replayed": 3}
    deletion = Place(BROKER_TIME + 100)
    hasher = IdHasher(settings.deletion_salt)
    with connection.connect(settings) as client:
        recovery.recover(settings, Shards(settings))
        client.hset(keys.ONLY.users_deleted, hasher("user", "u1"), deletion.text())
        client.hset(keys.ONLY.items_deleted, hasher("item", "i1"), deletion.text())
    one_left = {"deleted": 2, "replayed": 1}
    assert replay(settings, letters, corrections, Sending(dry_run=True)) == one_left
    renamed = Corrections(fields={**fix, "user_id": "u3"}, edits=edits)
    assert replay(settings, letters, renamed, Sending(dry_run=True)) == one_left, "the key is u1"
    to_deleted = Corrections(fields={**fix, "user_id": "u1"}, edits=edits)
    assert replay(settings, letters, to_deleted) == {"deleted": 3}, "u1 was deleted"
    assert events(settings) == []
    assert len(read(settings).select()) == 3, "they are not marked as replayed"


def test_letters_that_ingest_would_refuse_again_stop_the_replay_before_anything_is_sent(
    broker: object, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    """The command has the new event type, the running ingest was started without it."""
    log.ensure_topics(settings)
    running.note_accepted(redis, settings.use_cases)
    renamed = codec.encode_json({**VALID, "event_id": "e2", "event_type": "teleport"})
    late = codec.encode_json({**VALID, "timestamp": 99_999_999_999})
    write(settings, letter_of(settings, 1, late), letter_of(settings, 2, renamed))
    path = tmp_path / "use_cases.toml"
    text = Path("core/use_cases.toml").read_text()
    path.write_text(text.replace("[event_types]", "[event_types]\nteleport = 1.0"))
    fresh = settings.model_copy(update={"use_cases_path": path})
    fresh.__dict__.pop("use_cases", None)
    letters, fix = read(fresh).select(), Corrections(fields={"timestamp": 1_790_000_000})
    counts = {"replayed": 1, "unknown_event_type, by the running ingest": 1}
    assert replay(fresh, letters, fix, Sending(dry_run=True)) == counts
    with pytest.raises(RefusedAgain, match=r"refuse 1 of 2 letters again \(1 unknown_event_type\)"):
        replay(fresh, letters, fix)
    assert events(settings) == []
    assert replay(fresh, letters[:1], fix) == {"replayed": 1}
    running.note_accepted(redis, fresh.use_cases)  # ingest was started again
    assert replay(fresh, letters[1:], fix) == {"replayed": 1}
    running.note_accepted(redis, settings.use_cases)
    assert replay(fresh, letters[1:], fix, Sending(force=True)) == {"replayed": 1}
