"""Events in a partition that murmur2 does not choose for their user are counted in a metric, logged
once, and shown by `inspect user`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer
from prometheus_client import REGISTRY
from redis import Redis

from core.codec import encode_json
from core.murmur2 import partitions_of
from core.settings import Settings
from core.types import Interaction
from store.log import client as log
from store.log.producer import Producer
from store.log.topics.partitions import PRODUCERS_NOTICE_S, Layout, note_layout
from store.state import keys
from store.state.apply.batches import Event
from store.state.shards import Shards
from streams.ingest import foreign_partitions
from streams.ingest.foreign_partitions import ForeignPartitions
from streams.inspection import views
from testing.ports import free_port
from tests.conftest import Spawn
from tests.streams.ingest.test_partitions_added_under_load import lines, metric
from tests.support import eventually

USERS = [f"user-{number}" for number in range(40)]
METRIC = "eddyline_ingest_foreign_partition_events_total"


def own_partition(user: str) -> int:
    return int(partitions_of([user.encode()], 4)[0])


def interaction(user: str, event_id: str) -> bytes:
    return encode_json(Interaction(event_id, user, "item-1", "view", time.time()))


def send(settings: Settings, key: Callable[[str], bytes | None], prefix: str = "e") -> None:
    """One event of each user through a client with librdkafka's default partitioner."""
    other = KafkaProducer({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    for user in USERS:
        other.produce(settings.interactions_topic, interaction(user, f"{prefix}-{user}"), key(user))
    assert other.flush(20) == 0


@pytest.mark.process
@pytest.mark.timeout(240)
def test_events_sent_through_two_partitioners_are_counted_logged_and_shown(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    with Producer(settings) as producer:
        for user in USERS:
            producer.raw(settings.interactions_topic, user.encode(), interaction(user, f"e-{user}"))
    send(settings, str.encode)
    foreign = {
        user: zlib.crc32(user.encode()) % 4
        for user in USERS
        if zlib.crc32(user.encode()) % 4 != own_partition(user)
    }
    port = free_port()
    child = spawn("streams", "ingest", METRICS_PORT=str(port))
    eventually(lambda: lines(child, "events_in_foreign_partitions"), "a warning", 40.0)
    assert metric(port, METRIC) == {"": float(len(foreign))}
    (warning,) = lines(child, "events_in_foreign_partitions")
    assert warning["topic"] == settings.interactions_topic
    assert "murmur2" in str(warning["remedy"])
    user, partition = next(iter(foreign.items()))
    shown = views.user(settings, user)
    assert (shown["partition"], shown["foreign_partitions"]) == (own_partition(user), [partition])
    assert "counts twice" in shown["partition_note"]
    assert (
        views.user(settings, next(user for user in USERS if user not in foreign))["partition_note"]
        is None
    )
    assert {key.decode() for key in redis.scan_iter("user:*:partitions")} == set(
        map(keys.ONLY.user_partitions, foreign)
    )
    assert all(redis.ttl(keys.ONLY.user_partitions(user)) > 0 for user in foreign)  # type: ignore[operator]
    send(settings, str.encode, "later")
    eventually(lambda: metric(port, METRIC)[""] == 2 * len(foreign), "later events counted, too")
    assert len(lines(child, "events_in_foreign_partitions")) == 1, "logged once"


@pytest.mark.parametrize(
    "key", [lambda _user: None, lambda _user: b"item-1"], ids=["no key", "another key"]
)
@pytest.mark.timeout(240)
def test_records_whose_key_is_not_the_user_are_logged_too(
    broker: object,
    settings: Settings,
    redis: Redis,
    spawn: Spawn,
    key: Callable[[str], bytes | None],
) -> None:
    log.ensure_topics(settings)
    send(settings, key)
    child = spawn("streams", "ingest")
    eventually(lambda: lines(child, "events_in_foreign_partitions"), "a warning", 40.0)
    assert any(redis.scan_iter("user:*:partitions"))


def test_producers_with_the_same_partitioner_log_nothing(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    port = free_port()
    child = spawn("streams", "ingest", METRICS_PORT=str(port))
    with Producer(settings) as producer:
        for user in USERS:
            producer.raw(settings.interactions_topic, user.encode(), interaction(user, f"e-{user}"))
    eventually(lambda: all(redis.exists(keys.ONLY.user(user)) for user in USERS), "all counted")
    eventually(
        lambda: "eddyline_ingest_topic_lag_events" in _text(port),
        "the number of partitions is there",
    )
    child.stop()
    assert lines(child, "events_in_foreign_partitions") == []
    assert not any(redis.scan_iter("user:*:partitions"))


def _text(port: int) -> str:
    return (
        str(metric(port, "eddyline_ingest_topic_lag_events")) and "eddyline_ingest_topic_lag_events"
    )


class Watch(SimpleNamespace):
    """A partition watch whose layout the test sets."""

    layout: Layout | None
    answered_at: float


def foreign_events(
    settings: Settings, layout: Layout, later: Layout, broker_time: float, users: list[str] = USERS
) -> float:
    """How many events of partition 0 are foreign, when the broker answers `layout` and then
    `later`.
    """
    watch: Any = Watch(layout=layout, answered_at=0.0)
    detector = ForeignPartitions(Shards(settings), "interactions", watch)
    before = REGISTRY.get_sample_value(METRIC) or 0.0
    interactions = [Interaction(f"e-{user}", user, "item-1", "view", 1.0) for user in users]
    detector.add(0, [Event(interaction, broker_time) for interaction in interactions])
    detector.check()
    watch.layout, watch.answered_at = later, time.monotonic() + 1
    detector.check()
    return (REGISTRY.get_sample_value(METRIC) or 0.0) - before


def test_events_from_before_partitions_were_added_are_not_foreign(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_partitions, "CHECK_S", 0.0)
    now = time.time()
    four, eight = Layout(4, 0.0), Layout(8, now + PRODUCERS_NOTICE_S)
    own_users = [user for user in USERS if own_partition(user) == 0]
    assert foreign_events(settings, four, four, now) == len(USERS) - len(own_users)
    assert foreign_events(settings, eight, eight, now, own_users) == 0, "sent before the addition"
    assert foreign_events(settings, four, eight, now) == 0, "partitions were added since the check"
    grown = Layout(8, now - 1)
    assert foreign_events(settings, grown, grown, now, own_users) > 0, (
        "producers know all partitions"
    )


def test_every_event_of_a_foreign_user_counts_and_all_users_are_compared_with_added_partitions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_partitions, "CHECK_S", 0.0)
    now = time.time()
    watch: Any = Watch(layout=Layout(4, 0.0), answered_at=0.0)
    detector = ForeignPartitions(Shards(settings), "interactions", watch)

    def counted() -> float:
        """Foreign events, when each user has one more in partition 0."""
        before = REGISTRY.get_sample_value(METRIC) or 0.0
        interactions = [Interaction(f"e-{user}", user, "item-1", "view", 1.0) for user in USERS]
        detector.add(0, [Event(interaction, now) for interaction in interactions])
        detector.check()
        watch.answered_at = time.monotonic() + 1
        detector.check()
        watch.answered_at = 0.0
        return (REGISTRY.get_sample_value(METRIC) or 0.0) - before

    own_users = [user for user in USERS if own_partition(user) == 0]
    assert [counted() for _ in range(3)] == [len(USERS) - len(own_users)] * 3
    watch.layout = Layout(8, now - 1)
    counted()  # the first check after the answer of the broker sees the added partitions
    of_eight = partitions_of([user.encode() for user in USERS], 8).tolist()
    assert counted() == len(USERS) - of_eight.count(0) > len(USERS) - len(own_users)


def test_the_layout_is_noted_once_and_outlives_a_wipe(redis: Redis) -> None:
    assert note_layout(redis, "interactions", 4) == Layout(4, 0.0), "the number before is not known"
    assert note_layout(redis, "interactions", 4) == Layout(4, 0.0)
    grown = note_layout(redis, "interactions", 8)
    assert grown.partitions == 8
    assert grown.since > time.time()
    assert note_layout(redis, "interactions", 8) == grown
    redis.flushall()
    assert note_layout(redis, "interactions", 8, grown) == grown, (
        "a process that knows the layout notes it in an emptied Redis"
    )
    assert note_layout(redis, "interactions", 8) == grown
    assert not any(key.startswith(keys.ONLY.layout("")) for key in keys.ONLY.owned)
