"""`EventProducer`: every message is in the log, or raises an error."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from core.codec import decode_interaction, decode_item, decode_user, require_key
from core.settings import Settings
from eddyline_client import (
    DeliveryFailed,
    Event,
    EventProducer,
    InvalidInput,
    Item,
    MissingDependency,
    Unavailable,
)
from eddyline_client.connection_log import ConnectionLog
from store.log.client import admin, ensure_topics
from testing.apache import KafkaBroker
from testing.tansu import TansuBroker
from tests.clients.kafka import java_partition, messages, murmur2
from tests.support import eventually

Broker = KafkaBroker | TansuBroker
BACKEND = """
import importlib.util, json, sys
from eddyline_client import Event, EventProducer, Item, User

address, interactions, items, users = sys.argv[1:]
topics = {"interactions_topic": interactions, "items_topic": items, "users_topic": users}
with EventProducer(address, **topics) as producer:
    for number in range(300):
        event = {"event_id": f"e{number}", "user_id": f"user-{number % 100}", "item_id": "é/9"}
        producer.send(Event(**event, event_type="like", context={"page": number}))
    attributes = {"stage": "seed", "team": 7}
    producer.upsert_item(
        Item(item_id="é/9", item_type="startup", categories=["fintech"], attributes=attributes)
    )
    producer.delete_item("old")
    producer.upsert_user(User(user_id="user-1", interests=["fintech"]))
    producer.delete_user("user-2")
rooms = ("core", "store", "api")
print(json.dumps({room: importlib.util.find_spec(room) is not None for room in rooms}))
"""


def producer(settings: Settings, **options: object) -> EventProducer:
    return EventProducer(
        settings.kafka_bootstrap_servers, interactions_topic=settings.interactions_topic, **options
    )  # type: ignore[arg-type]


def likes(count: int) -> list[Event]:
    return [
        Event(user_id="42", item_id="9", event_type="like", event_id=str(number))
        for number in range(count)
    ]


@pytest.mark.process
def test_a_backend_with_only_the_wheel_publishes_what_ingest_accepts(
    settings: Settings, broker: Broker, backend_python: Path, tmp_path: Path
) -> None:
    ensure_topics(settings)
    script = tmp_path / "backend.py"
    script.write_text(BACKEND)
    topics = (settings.interactions_topic, settings.items_topic, settings.users_topic)
    command = [backend_python, script, settings.kafka_bootstrap_servers, *topics]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={}, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '{"core": false, "store": false, "api": false}', (
        "it ran with nothing of this repository"
    )
    assert done.stderr == ""

    partitions = settings.topic_partitions
    sent = messages(settings, settings.interactions_topic, 300)
    events = [
        decode_interaction(message.value(), message.timestamp()[1] / 1000, settings.use_cases)
        for message in sent
    ]
    assert sorted(int(event.event_id[1:]) for event in events) == list(range(300)), "each once"
    for message, event in zip(sent, events, strict=True):
        assert message.key().decode() == event.user_id
        assert message.partition() == java_partition(message.key(), partitions)
    for user_id in {event.user_id for event in events}:
        numbers = [int(event.event_id[1:]) for event in events if event.user_id == user_id]
        assert numbers == sorted(numbers), "a user's events stay in order"
    entries = {
        message.key().decode(): message.value()
        for message in messages(settings, settings.items_topic, 2)
    }
    assert entries.pop("old") is None
    assert require_key(decode_item(entries["é/9"], time.time()), "é/9").attributes == {
        "stage": "seed",
        "team": 7,
    }
    declared = {
        message.key().decode(): message.value()
        for message in messages(settings, settings.users_topic, 2)
    }
    assert declared.pop("user-2") is None
    assert decode_user(declared["user-1"], time.time()).interests == ["fintech"]


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingDependency, match=r"eddyline-client\[kafka\]"):
        EventProducer("127.0.0.1:9")


@pytest.mark.parametrize(
    ("key", "java"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_goes_to_the_partition_of_java_clients(key: bytes, java: int) -> None:
    assert murmur2(key) == java & 0xFFFFFFFF, "values of Apache Kafka's own UtilsTest"


def test_without_a_broker_one_error_is_raised_and_its_cause_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "eddyline_client")
    began = time.monotonic()
    with pytest.raises(
        Unavailable,
        match=(
            r"Kafka at 127.0.0.1:9 did not answer within 1 s: .*Connection refused.*is the "
            r"broker up"
        ),
    ):
        EventProducer("127.0.0.1:9", connect_timeout_s=1)
    assert time.monotonic() - began < 10
    assert 1 <= len(caplog.records) <= 5, caplog.text


def test_that_all_brokers_are_down_does_not_hide_the_cause() -> None:
    connections = ConnectionLog("127.0.0.1:9")
    connections.error(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    connections.error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert connections.last_error == "Connection refused"


@pytest.mark.process
@pytest.mark.timeout(480)  # Apache Kafka is started twice
def test_events_that_a_dead_broker_has_not_acknowledged_are_returned(
    settings: Settings, own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """And the outage is two lines of the log."""
    caplog.set_level(logging.WARNING, "eddyline_client")
    ensure_topics(settings)
    events = likes(3)
    publisher = producer(settings, delivery_timeout_s=2, connect_timeout_s=1)
    publisher.send(*events)
    publisher.flush()
    own_broker.kill()
    publisher.send(*events)
    eventually(lambda: len(publisher) == 0, "each event has its result", 15)
    with pytest.raises(
        DeliveryFailed, match=r"did not acknowledge 3 messages.*Send them again"
    ) as failed:
        publisher.send(events[0])
    assert [failure.entry for failure in failed.value.failures] == events
    eventually(lambda: len(publisher) == 0, "nor does an event of the client wait", 15)
    # not only after another time-out
    with pytest.raises(Unavailable, match="did not answer within 1 s"):
        publisher.send(events[0])

    own_broker.restart()
    ensure_topics(settings)  # the embedded broker forgets them

    def again() -> bool:
        try:
            publisher.send(*events)
            publisher.flush()
        except Unavailable:
            return False
        return True

    eventually(again, "the same producer delivers to the broker that came back", 60)
    eventually(lambda: "kafka_available" in caplog.text, "the end of the outage is logged")
    publisher.close()
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"kafka_unavailable servers={settings.kafka_bootstrap_servers}")
    assert re.search(r"kafka_available .* outage_s=\d", second)
    ids = {
        decode_interaction(one.value(), time.time(), settings.use_cases).event_id
        for one in messages(settings, settings.interactions_topic, 3)
    }
    assert ids == {"0", "1", "2"}
    own_broker.kill()  # it would wait for its connections


def test_the_end_of_the_block_raises_failed_deliveries(
    settings: Settings, own_broker: Broker
) -> None:
    ensure_topics(settings)
    event = likes(1)[0]
    with pytest.raises(DeliveryFailed, match="did not acknowledge 1 messages"):
        _send_to_a_broker_that_dies(settings, own_broker, event)


def _send_to_a_broker_that_dies(settings: Settings, own_broker: Broker, event: Event) -> None:
    with producer(settings, delivery_timeout_s=1) as publisher:
        own_broker.kill()
        publisher.send(event)


def test_a_full_queue_blocks_the_sender_until_there_is_room(
    settings: Settings, own_broker: Broker
) -> None:
    ensure_topics(settings)
    with producer(settings, max_queued=10) as publisher, ThreadPoolExecutor(1) as pool:
        own_broker.child.signal(signal.SIGSTOP)
        try:
            sending = pool.submit(publisher.send, *likes(25))
            eventually(lambda: len(publisher) >= 10, "the queue is full")
            time.sleep(0.3)  # time in which a queue without a bound would take the rest
            assert not sending.done()
            assert len(publisher) <= 10
        finally:
            own_broker.child.signal(signal.SIGCONT)
        sending.result(60)
    sent = messages(settings, settings.interactions_topic, 25)
    ids = [
        decode_interaction(message.value(), time.time(), settings.use_cases).event_id
        for message in sent
    ]
    assert ids == [str(number) for number in range(25)]
    own_broker.kill()  # it would wait for its connections


def test_a_missing_topic_is_named_and_not_created(settings: Settings, broker: Broker) -> None:
    with (
        producer(settings) as publisher,
        pytest.raises(Unavailable, match=f"no topic '{settings.interactions_topic}'"),
    ):
        publisher.send(*likes(1))
    assert settings.interactions_topic not in admin(settings).list_topics(timeout=30).topics


def test_config_may_not_weaken_the_guarantees_and_other_settings_are_used(
    settings: Settings, broker: Broker
) -> None:
    for name, value in {
        "acks": 0,
        "enable.idempotence": False,
        "max.in.flight": 5,
        "max.in.flight.requests.per.connection": 5,
        "partitioner": "random",
        "retries": 0,
    }.items():
        with pytest.raises(InvalidInput, match=name):
            producer(settings, config={name: value})
    with pytest.raises(InvalidInput, match=r"no\.such\.setting"):
        producer(settings, config={"no.such.setting": 1})
    with pytest.raises(Unavailable):
        producer(settings, config={"security.protocol": "ssl"}, connect_timeout_s=1)
    with producer(settings, config={"client.id": "shop"}) as publisher:
        assert len(publisher) == 0


def test_invalid_input_is_refused_and_nothing_is_queued(settings: Settings, broker: Broker) -> None:
    ensure_topics(settings)
    with producer(settings, items_topic=settings.items_topic) as publisher:
        good = likes(1)[0]
        for wrong in (
            Event(user_id="", item_id="9", event_type="like"),
            Event(user_id="42", item_id="9", event_type="like", timestamp=time.time() * 1000),
        ):
            with pytest.raises(InvalidInput):
                publisher.send(good, wrong)
        with pytest.raises(InvalidInput):
            publisher.upsert_item(Item(item_id="9", item_type="startup", attributes={"a": {}}))  # type: ignore[dict-item]
        with pytest.raises(InvalidInput):
            publisher.delete_item("\n")
        assert len(publisher) == 0
    with pytest.raises(InvalidInput, match="closed"):
        publisher.send(good)
    publisher.close()
