"""Hints of ingest to the live workers: batched, in order, dropped while Kafka is away."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, TopicPartition

from core.errors import BadEvent
from core.settings import Settings
from store.log import client as log
from store.log import model_updates
from store.log.model_updates import Hints
from store.state.apply.batches import Event
from tests.live.world import event


def applied(*user_ids: str) -> list[Event]:
    return [Event(event(user_id, "item-1"), 1.7e9) for user_id in user_ids]


@pytest.mark.process
def test_hints_of_a_partition_stay_in_order(settings: Settings, broker: object) -> None:
    log.ensure_topics(settings)
    lost: list[int] = []
    hints = Hints(settings, lost.append)
    assert hints.due_in() is None
    sent = [f"user-{number}" for number in range(1200)]
    for start in range(0, len(sent), 100):
        hints.add(2, applied(*sent[start : start + 100]))
    hints.add(2, [])
    hints.close()
    assert sum(lost) == 0
    consumer = Consumer(log.consumer_config(settings, "hints"))
    consumer.assign([TopicPartition(settings.model_updates_topic, 2, 0)])
    received: list[str] = []
    while len(received) < len(sent):
        message = consumer.poll(10.0)
        assert message is not None
        pairs = model_updates.decode(message.value())
        assert 0 < len(pairs) <= model_updates.GATHER_EVENTS
        received += [user_id for user_id, _ in pairs]
    consumer.close()
    assert received == sent


def test_while_the_broker_is_away_hints_are_dropped_and_counted(settings: Settings) -> None:
    lost: list[int] = []
    hints = Hints(settings, lost.append)
    for _ in range(2):
        hints.add(0, applied("ann"))
        assert hints.due_in() is not None
        hints.flush()
        assert hints.due_in() is None
    hints.close()
    assert sum(lost) == 2


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"{}",
        b"[1]",
        b'[["only one"]]',
        b'[["a", "b", "c"]]',
        b'[["a", 1]]',
        b"[" * 100_000,
    ],
)
def test_an_invalid_hint_is_rejected(value: bytes | None) -> None:
    with pytest.raises(BadEvent):
        model_updates.decode(value)
