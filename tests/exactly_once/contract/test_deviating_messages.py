"""Messages of other clients than ours on Apache Kafka: what deviates from the contract is refused
with its cause, counts where a setting accepts it, and can be corrected by a replay.
"""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer
from redis import Redis

from core.codec import encode_json
from core.deletions import IdHasher, Place
from core.settings import Settings
from store.dead_letters.letters import Selection, read
from store.state import keys
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, run
from tests.exactly_once.conftest import Ingest, caught_up
from tests.support import eventually
from tests.topics import recreate

pytestmark = [pytest.mark.apache, pytest.mark.timeout(360)]

TIME = 1_780_000_000
RECORD_TIMES = {
    "missing": (-1, "is missing (-1)"),
    "seconds": (TIME, "looks like seconds"),
    "micros": (TIME * 1_000_000, "looks like microseconds"),
}
"""Record times that clients set by mistake where milliseconds belong, and how each is named."""
FRAME = b"\0\0\0\0\7"
"""What a serialiser of a schema registry writes before the payload."""
ACCEPT_ALL = {
    "accept_integer_ids": True,
    "accept_empty_list_as_object": True,
    "accept_null_as_empty_list": True,
    "accept_time_text": True,
    "accept_time_unit": "ms",
}


def event(user_id: Any, **fields: Any) -> bytes:
    return encode_json(
        {
            "event_id": f"of-{user_id}",
            "user_id": user_id,
            "item_id": "i1",
            "event_type": "view",
            "timestamp": TIME,
            **fields,
        }
    )


def item(item_id: Any, **fields: Any) -> bytes:
    return encode_json({"item_id": item_id, "item_type": "movie", **fields})


EVENTS = {
    "framed": FRAME + event("framed"),
    "7": event(7),
    "php": event("php", context=[]),
    "iso": event("iso", timestamp="2026-05-28T20:26:40Z"),
    "millis": event("millis", timestamp=TIME * 1000),
}
"""By user: an event that deviates from the contract."""
ITEMS = {
    "8": item(8, categories=["a"]),
    "no-tags": item("no-tags", tags=None, attributes=[]),
    "old": item("old", created_at=TIME * 1000),
}
"""By item: an entry that deviates from the contract."""


def send(settings: Settings, topic: str, messages: dict[str, Any], record_time: int = 0) -> None:
    """Send values by key, through the client of another team; `record_time` in milliseconds."""
    producer = KafkaProducer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for key, value in messages.items():
        producer.produce(topic, value, key.encode(), timestamp=record_time)
    assert producer.flush(30) == 0


def let_producers_set_the_time(settings: Settings, topic: str) -> None:
    """As other brokers do: any time, also one that is far off.

    The topic is created so, because a broker applies a later change only after a while.
    """
    recreate(
        settings,
        topic,
        **{
            "message.timestamp.type": "CreateTime",
            "message.timestamp.after.max.ms": str(2**63 - 1),
            "retention.ms": "-1",  # else the broker removes records of 1970 within minutes
        },
    )


def letters(settings: Settings) -> dict[str, tuple[str, str]]:
    """By key of the original: code and reason of the letters that wait."""
    return {
        (letter.key or b"").decode(): (letter.code, letter.reason)
        for letter in read(settings).select(Selection())
    }


def test_a_deviation_is_refused_with_the_setting_that_accepts_it_and_a_replay_corrects_it(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    send(settings, settings.interactions_topic, EVENTS)
    send(settings, settings.items_topic, ITEMS)
    child = ingest()
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)
    settings_of = {
        key: (code, [word for word in reason.split() if word.startswith("ACCEPT_")])
        for key, (code, reason) in letters(settings).items()
    }
    assert settings_of == {
        "7": ("bad_field", ["ACCEPT_INTEGER_IDS=true"]),
        "php": ("bad_field", ["ACCEPT_EMPTY_LIST_AS_OBJECT=true"]),
        "iso": ("bad_field", ["ACCEPT_TIME_TEXT=true"]),
        "millis": ("bad_timestamp", ["ACCEPT_TIME_UNIT=ms"]),
        "8": ("bad_field", ["ACCEPT_INTEGER_IDS=true"]),
        "no-tags": (
            "bad_field",
            ["ACCEPT_NULL_AS_EMPTY_LIST=true", "ACCEPT_EMPTY_LIST_AS_OBJECT=true"],
        ),
        "old": ("bad_timestamp", ["ACCEPT_TIME_UNIT=ms"]),
    }
    assert redis.exists("user:framed"), "the framing of a schema registry is removed"
    casts = ("user_id=str", "item_id=str", "context=object", "timestamp=time", "tags=list")
    options = [option for cast in casts for option in ("--cast", cast)]
    run(spawn, "dlq", "replay", "--code", "bad_field", *options, "--cast", "attributes=object")
    run(spawn, "dlq", "replay", "--code", "bad_timestamp", "--time-unit", "ms")
    assert letters(settings) == {}
    caught_up(redis, settings, child)
    counted = oracle.assert_equal(redis, settings).users
    assert {user: counters["events"] for user, counters in counted.items()} == dict.fromkeys(
        EVENTS, "1"
    )
    assert redis.hlen("items") == len(ITEMS)


class TestWithEverySetting:
    """With ACCEPT_... on."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update=ACCEPT_ALL)

    def test_a_deviation_that_the_settings_accept_counts_in_redis_and_in_the_archive(
        self, broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
    ) -> None:
        send(settings, settings.interactions_topic, EVENTS | {"plain": event("plain")})
        send(settings, settings.items_topic, ITEMS)
        child = ingest()
        caught_up(redis, settings, child)
        expected = oracle.assert_equal(redis, settings)
        assert (expected.counted, len(expected.items), expected.dead) == (6, 3, {})
        assert expected.items["old"][0].created_at == TIME
        assert {line for lines in expected.histories["millis"].values() for line in lines} == {
            line for lines in expected.histories["iso"].values() for line in lines
        }
        archive(spawn)
        assert not oracle.archive_differences(settings, oracle.record(settings))


def test_a_wrong_record_time_is_named_instead_of_the_timestamp_of_the_event(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    topics = (settings.interactions_topic, settings.items_topic, settings.users_topic)
    for topic in topics:
        let_producers_set_the_time(settings, topic)
    child = ingest()
    eventually(lambda: "partition_assigned" in child.log.read_text(), "ingest has partitions")
    for name, (record_time, _) in RECORD_TIMES.items():
        send(settings, settings.interactions_topic, {f"{name} event": event(name)}, record_time)
        send(settings, settings.items_topic, {f"{name} item": item(f"{name} item")}, record_time)
        send(settings, settings.users_topic, {f"{name} deletion": None}, record_time)
    send(settings, settings.interactions_topic, {"right": event("right")}, TIME * 1000)
    caught_up(redis, settings, child)
    assert oracle.assert_equal(redis, settings).counted == 1
    waiting = letters(settings)
    assert {key: code for key, (code, _) in waiting.items()} == {
        f"{name} {kind}": "bad_record_time"
        for name in RECORD_TIMES
        for kind in ("event", "item", "deletion")
    }
    for key, (_, reason) in waiting.items():
        assert RECORD_TIMES[key.split()[0]][1] in reason
        assert "message.timestamp.type=CreateTime" in reason
    assert "bad_record_time" in run(spawn, "dlq", "list")
    archive(spawn)
    assert not oracle.archive_differences(settings, oracle.record(settings))
    output = run(spawn, "dlq", "replay", "--code", "bad_record_time")
    assert set(letters(settings)) == {f"{name} deletion" for name in RECORD_TIMES}, (
        "a deletion is not sent again"
    )
    assert "empty" in output
    caught_up(redis, settings, child)
    assert oracle.assert_equal(redis, settings).counted == 1 + len(RECORD_TIMES)
    assert redis.hlen("items") == len(RECORD_TIMES)


def test_a_record_time_that_is_far_off_drops_no_deletion(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    let_producers_set_the_time(settings, settings.interactions_topic)
    record_time, _ = RECORD_TIMES["micros"]
    send(settings, settings.interactions_topic, {"u1": event("u1")}, record_time)
    archive(spawn)
    digest = IdHasher(settings.deletion_salt)("user", "u1")
    redis.hset(keys.ONLY.users_deleted, digest, Place(float(TIME)).text())
    run(spawn, "expire")
    assert redis.hexists(keys.ONLY.users_deleted, digest), (
        "the record may be older than the deletion"
    )
