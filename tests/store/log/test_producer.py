"""A message reads as accepted exactly when the log holds it, and writes go on soon after the broker
is back, whatever it still knows.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager

import pytest
from confluent_kafka import Consumer, TopicPartition

from core.errors import LogUnavailable
from core.settings import Settings
from store.log.client import consumer_config, ensure_topics
from store.log.producer import Producer
from testing.apache import KafkaBroker
from testing.tansu import TansuBroker
from tests.support import eventually

SOON_S = 20.0
"""Seconds until writes are accepted again, on a busy machine: an idle one takes two.

Far below the 120 s that a message may wait.
"""


def _values(settings: Settings, topic: str) -> list[bytes]:
    """The values that the log holds now, by partition and offset."""
    consumer = Consumer(consumer_config(settings, "reader") | {"enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    values, left = [], set(partitions)
    while left:
        message = consumer.poll(10.0)
        assert message is not None, "no answer from the broker"
        if message.error() is not None:
            left.discard(message.partition())
        else:
            values.append(message.value() or b"")
    consumer.close()
    return values


@contextmanager
def _outage(broker: KafkaBroker | TansuBroker, *, wiped: bool = False) -> Iterator[None]:
    broker.kill()
    yield
    if wiped:
        shutil.rmtree(broker.directory / "log")
    broker.start()


def _delivers(producer: Producer) -> bool:
    try:
        producer.flush()
    except LogUnavailable:
        return False
    return True


@pytest.mark.process
def test_messages_that_wait_through_an_outage_arrive_once_or_fail_soon(
    settings: Settings, own_broker: KafkaBroker | TansuBroker
) -> None:
    """An importer's case: a message may wait 120 s.

    A broker that kept its log gets it; one that lost it refuses it within seconds.
    """
    ensure_topics(settings)
    topic = settings.interactions_topic
    with Producer(settings) as producer:
        producer.raw(topic, b"42", b"before")
        producer.flush()
        with _outage(own_broker):
            producer.raw(topic, b"42", b"waits")
        began = time.monotonic()
        failed = not _delivers(producer)
        assert time.monotonic() - began < SOON_S
        assert failed == isinstance(own_broker, TansuBroker)
        producer.raw(topic, b"42", b"after")
        assert _delivers(producer), "writes are accepted again"
    values = _values(settings, topic)
    assert values.count(b"after") == 1
    assert (b"waits" in values) != failed


@pytest.mark.process
@pytest.mark.parametrize("wiped", [False, True])
def test_a_batch_is_sent_in_order_after_an_outage(
    settings: Settings, own_broker: KafkaBroker | TansuBroker, wiped: bool
) -> None:
    if wiped and isinstance(own_broker, TansuBroker):
        pytest.skip("Tansu's memory is wiped by every kill")
    ensure_topics(settings)
    topic = settings.interactions_topic
    with Producer(settings) as producer:
        producer.batch(topic, [(b"42", b"before")])
        producer.flush()
        with _outage(own_broker, wiped=wiped):
            pass
        ensure_topics(settings)

        def sent() -> bool:
            producer.batch(topic, [(b"42", str(number).encode()) for number in range(500)])
            return _delivers(producer)

        eventually(sent, "a batch is delivered", SOON_S)
    values = [int(value) for value in _values(settings, topic) if value != b"before"]
    assert values[-500:] == list(range(500))


def test_producers_that_the_broker_gives_the_same_id_lose_nothing(
    settings: Settings, own_broker: TansuBroker
) -> None:
    """A broker without its memory counts producer ids from 1 again: one producer's message must not
    pass for another's repetition.
    """
    ensure_topics(settings)
    topic = settings.interactions_topic
    with ExitStack() as stack:
        producers = [
            stack.enter_context(Producer(settings, delivery_timeout_s=2.0)) for _ in range(4)
        ]
        for producer in producers:
            producer.publish(topic, b"42", b"before").result(10)
        with _outage(own_broker):
            pass
        ensure_topics(settings)
        accepted: list[bytes] = []
        # The newest first: they get the ids that the oldest had.
        producers += [
            stack.enter_context(Producer(settings, delivery_timeout_s=2.0)) for _ in range(4)
        ]
        for number, producer in reversed(list(enumerate(producers))):

            def accepts(value: bytes, producer: Producer = producer) -> bool:
                future: Future[str] = producer.publish(topic, b"42", value)
                return future.exception(10) is None

            for turn in range(8):
                value = f"{number}-{turn}".encode()
                eventually(lambda value=value, accepts=accepts: accepts(value), "accepted", SOON_S)  # type: ignore[misc]
                accepted.append(value)
    assert sorted(set(accepted) - set(_values(settings, topic))) == []


def test_a_closed_producer_gives_every_future_a_verdict(
    settings: Settings, own_broker: TansuBroker
) -> None:
    ensure_topics(settings)
    producer = Producer(settings)
    producer.publish(settings.interactions_topic, b"42", b"before").result(10)
    own_broker.kill()
    waiting = [producer.publish(settings.interactions_topic, b"42", b"waits") for _ in range(3)]
    with pytest.raises(LogUnavailable):
        producer.close(0.2)
    assert all(isinstance(future.exception(0), LogUnavailable) for future in waiting)
