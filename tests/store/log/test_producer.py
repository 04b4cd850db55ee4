"""A message is reported as accepted exactly when the log holds it.

Writes succeed again soon after the broker restarts, with or without its state.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager

import pytest
from confluent_kafka import Consumer, TopicPartition

from core.errors import LogUnavailable
from core.settings import Settings
from store.log.client import consumer_config, ensure_topics
from store.log.client_events import ClientEvents
from store.log.producer import Producer
from testing.apache import KafkaBroker
from testing.tansu import TansuBroker
from tests.store.log.refusing_proxy import RefusingProxy
from tests.support import eventually

SOON_S = 20.0
"""Seconds until writes are accepted again on a busy machine; an idle one needs two.

A message may wait much longer: 120 s.
"""


def _values(settings: Settings, topic: str) -> list[bytes]:
    """The values in the log now, in the order of each partition."""
    consumer = Consumer(consumer_config(settings, "reader") | {"enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    values, unfinished = [], set(partitions)
    while unfinished:
        message = consumer.poll(10.0)
        assert message is not None, "no answer from the broker"
        if message.error() is not None:
            unfinished.discard(message.partition())
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
def test_messages_queued_during_an_outage_are_delivered_once_or_fail_soon(
    settings: Settings, own_broker: KafkaBroker | TansuBroker
) -> None:
    """A broker that has its log accepts the message; one that lost it refuses it in seconds."""
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


@pytest.mark.apache
def test_an_accepted_message_is_in_the_log_after_the_broker_refused_the_first(
    settings: Settings, broker: KafkaBroker
) -> None:
    """As a broker does that does not lead a new partition yet."""
    ensure_topics(settings)
    topic, values = settings.interactions_topic, [b"%d" % number for number in range(5)]
    with RefusingProxy(broker.port) as proxy:
        through = settings.model_copy(update={"kafka_bootstrap_servers": proxy.address})
        with Producer(through) as producer:
            accepted = [producer.publish(topic, b"42", values[0])]
            eventually(proxy.has_request.is_set, "the first message is under way")
            accepted += [producer.publish(topic, b"42", value) for value in values[1:]]
            assert [future.exception(SOON_S) for future in accepted] == [None] * len(values)
    assert proxy.has_refused.is_set()
    assert _values(settings, topic) == values


def test_one_request_at_a_time_is_under_way(
    settings: Settings, own_broker: TansuBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more, a broker may refuse the first of a new partition and write the second, and the
    library reports both as accepted.
    """
    ensure_topics(settings)
    topic, under_way = settings.interactions_topic, list[int]()
    report = ClientEvents.statistics

    def statistics(events: ClientEvents, text: str) -> None:
        brokers = json.loads(text)["brokers"].values()
        under_way.append(max(broker["waitresp_cnt"] for broker in brokers))
        report(events, text)

    monkeypatch.setattr(ClientEvents, "statistics", statistics)
    messages = [(str(key).encode(), str(key).encode()) for key in range(40)]  # in all partitions
    with Producer(settings) as producer:
        producer.batch(topic, messages)
        producer.flush()
        own_broker.child.signal(signal.SIGSTOP)
        producer.batch(topic, messages)
        under_way.clear()
        eventually(lambda: len(under_way) >= 3 and any(under_way), "the broker has a request", 30)
        own_broker.child.signal(signal.SIGCONT)
        producer.flush()
    assert set(under_way) <= {0, 1}
    assert len(_values(settings, topic)) == 2 * len(messages)


def test_producers_with_the_same_producer_id_lose_no_message(
    settings: Settings, own_broker: TansuBroker
) -> None:
    """A broker without its state assigns producer ids from 1 again.

    It must not drop one producer's message as a duplicate of another's.
    """
    ensure_topics(settings)
    topic = settings.interactions_topic
    with ExitStack() as stack:
        producers = [
            stack.enter_context(Producer(settings, delivery_timeout_s=2.0)) for _ in range(4)
        ]
        for producer in producers:
            producer.publish(topic, b"42", b"before").result(30)
        with _outage(own_broker):
            pass
        ensure_topics(settings)
        accepted: list[bytes] = []
        # the newest write first: they get the ids that the oldest had
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


def test_closing_a_producer_completes_every_future(
    settings: Settings, own_broker: TansuBroker
) -> None:
    ensure_topics(settings)
    producer = Producer(settings)
    producer.publish(settings.interactions_topic, b"42", b"before").result(30)
    own_broker.kill()
    waiting = [producer.publish(settings.interactions_topic, b"42", b"waits") for _ in range(3)]
    with pytest.raises(LogUnavailable):
        producer.close(0.2)
    assert all(isinstance(future.exception(0), LogUnavailable) for future in waiting)
