"""What trickles in shares a transaction; what is much, or must not be mixed, does not wait for
it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from redis import Redis

from core.codec import encode_json
from core.settings import Settings
from core.types import Interaction, Item
from store.state.apply.pending import Mark, PendingPopularity
from streams.ingest import batcher
from streams.ingest import loop as ingest
from streams.ingest.apply_thread import Work
from streams.ingest.batcher import Assigned
from streams.ingest.loop import Ingest


class Told(NamedTuple):
    """A message as a consumer answers it."""

    of: tuple[str, int]
    at: int
    text: bytes
    named: bytes = b"u"

    def topic(self) -> str:
        return self.of[0]

    def partition(self) -> int:
        return self.of[1]

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_760_000_000_000

    def key(self) -> bytes:
        return self.named

    def value(self) -> bytes:
        return self.text

    def error(self) -> None:
        return None


class Taking:
    """An ingest that has three partitions of events and one of items, and tells what it puts in one
    transaction.
    """

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop, self.settings = Ingest(settings), settings
        self.put: list[list[tuple[str, int, int]]] = []
        monkeypatch.setattr(self.loop._sender, "put", self._note)
        for of in [(settings.interactions_topic, number) for number in range(3)] + [
            (settings.items_topic, 0)
        ]:
            self.loop._assigned[of] = Assigned(
                0, 1, 10_000, PendingPopularity(settings.use_cases, 30.0, Mark())
            )

    def _note(self, *works: Work) -> None:
        self.put.append(
            [
                (*work.batch.offsets.source, work.batch.offsets.next - work.batch.offsets.first)
                for work in works
            ]
        )

    def events(self, partition: int, count: int) -> list[Told]:
        of = self.settings.interactions_topic, partition
        first = self.loop._assigned[of].next
        told = [
            Interaction(f"e{partition}-{first + at}", "u", "startup-1", "view", 1.76e9)
            for at in range(count)
        ]
        return [Told(of, first + at, encode_json(event)) for at, event in enumerate(told)]

    def take(self, messages: list[Told]) -> None:
        self.loop._intake.take(messages[0].of, self.loop._assigned[messages[0].of], messages)


@pytest.fixture
def taking(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Taking]:
    taking = Taking(settings, monkeypatch)
    yield taking
    taking.loop._client.close()


def test_what_came_together_goes_together(taking: Taking) -> None:
    topic = taking.settings.interactions_topic
    for partition in range(3):
        taking.take(taking.events(partition, 5))
    assert taking.put == []
    taking.loop._intake.send()
    taking.loop._intake.send()
    assert taking.put == [[(topic, 0, 5), (topic, 1, 5), (topic, 2, 5)]]


def test_many_events_do_not_share_a_transaction(taking: Taking) -> None:
    topic, most = taking.settings.interactions_topic, batcher._TOGETHER
    for partition in range(3):
        taking.take(taking.events(partition, most // 2 + 1))
    taking.loop._intake.send()
    assert taking.put == [[(topic, number, most // 2 + 1)] for number in range(3)]


def test_two_batches_of_a_partition_follow_each_other(taking: Taking) -> None:
    topic, most = taking.settings.interactions_topic, taking.settings.transaction_events
    taking.take(taking.events(0, most + 2))
    taking.take(taking.events(1, 1))
    taking.loop._intake.send()
    assert taking.put == [[(topic, 0, most)], [(topic, 0, 2), (topic, 1, 1)]]


def test_the_catalogue_goes_alone_and_after_the_events_that_were_before_it(taking: Taking) -> None:
    topic, items = taking.settings.interactions_topic, (taking.settings.items_topic, 0)
    taking.take(taking.events(0, 1))
    taking.take(
        [Told(items, 0, encode_json(Item(item_id="startup-1", item_type="startup")), b"startup-1")]
    )
    taking.take(taking.events(1, 1))
    taking.loop._intake.send()
    assert taking.put == [[(topic, 0, 1)], [(*items, 1)], [(topic, 1, 1)]]


class Consumer:
    """Answers what is there, as one that has fetched it already."""

    def __init__(self, there: list[Told]) -> None:
        self.there = there

    def consume(self, count: int, _timeout: float) -> list[Told]:
        taken, self.there = self.there[:count], self.there[count:]
        return taken


def test_an_event_that_comes_alone_waits_for_nothing_and_those_of_a_crowd_for_each_other(
    taking: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    for after in (0.0, 0.002, 5.0):
        now[0] += after
        taking.loop._consume(Consumer(taking.events(0, 1)), 0.2)  # type: ignore[arg-type]
    assert slept == pytest.approx([0.0, ingest._GATHER_S - 0.002, 0.0])


def test_nobody_waits_while_more_is_there_than_one_look_takes(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking, slept = (
        Taking(settings.model_copy(update={"poll_events": 10}), monkeypatch),
        list[float](),
    )
    consumer = Consumer(taking.events(0, 25))
    monkeypatch.setattr(time, "sleep", slept.append)
    for _ in range(3):
        taking.loop._consume(consumer, 0.2)  # type: ignore[arg-type]
    assert len(slept) == 1
    assert consumer.there == []
