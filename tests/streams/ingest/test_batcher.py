"""Small batches share a transaction; large ones, and those that must not be mixed, do not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from redis import Redis

from core.codec import encode_json
from core.settings import Settings
from core.types import Item
from store.state.apply.planner import Planner
from store.state.shards import Shards
from streams.ingest.apply_thread import ApplyThread, Task
from streams.ingest.batcher import SHARED_EVENTS, Batcher
from streams.ingest.foreign_partitions import ForeignPartitions
from streams.ingest.partition import InteractionPartition
from streams.ingest.partition_watch import IngestWatch
from streams.ingest.polling import GATHER_S, Poller
from tests.streams.ingest.partitions import Message, interactions, items, message, messages


class Batching:
    """A batcher, and three partitions of interactions. `transactions` gathers what it queues."""

    def __init__(self, settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = settings
        planner = Planner(settings.use_cases)
        thread = ApplyThread(Shards(settings), planner, settings)
        self.transactions: list[tuple[Task, ...]] = []
        monkeypatch.setattr(thread, "put", lambda *tasks: self.transactions.append(tasks))
        topic = settings.interactions_topic
        foreign = ForeignPartitions(Shards(settings), topic, IngestWatch(settings, [topic]))
        self.batcher = Batcher(settings, planner, thread, foreign)
        self.partitions = [interactions(settings, number) for number in range(3)]

    @property
    def sizes(self) -> list[list[tuple[str, int, int]]]:
        """(Topic, partition, offsets) of each batch of each transaction."""
        return [
            [
                (*task.batch.offsets.source, task.batch.offsets.next - task.batch.offsets.first)
                for task in tasks
            ]
            for tasks in self.transactions
        ]

    def add(self, number: int, count: int) -> None:
        partition = self.partitions[number]
        self.batcher.add(partition, messages(partition, count))


@pytest.fixture
def batching(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Batching]:
    return Batching(settings, redis, monkeypatch)


def test_batches_of_one_poll_share_a_transaction(batching: Batching) -> None:
    topic = batching.settings.interactions_topic
    for number in range(3):
        batching.add(number, 5)
    assert batching.sizes == []
    batching.batcher.send()
    batching.batcher.send()
    assert batching.sizes == [[(topic, 0, 5), (topic, 1, 5), (topic, 2, 5)]]


def test_large_batches_do_not_share_a_transaction(batching: Batching) -> None:
    topic, count = batching.settings.interactions_topic, SHARED_EVENTS // 2 + 1
    for number in range(3):
        batching.add(number, count)
    batching.batcher.send()
    assert batching.sizes == [[(topic, number, count)] for number in range(3)]


def test_two_batches_of_a_partition_have_two_transactions(batching: Batching) -> None:
    topic, most = batching.settings.interactions_topic, batching.settings.transaction_events
    batching.add(0, most + 2)
    batching.add(1, 1)
    batching.batcher.send()
    assert batching.sizes == [[(topic, 0, most)], [(topic, 0, 2), (topic, 1, 1)]]


def test_a_batch_of_items_is_alone_and_after_the_events_before_it(batching: Batching) -> None:
    topic, items_topic = batching.settings.interactions_topic, batching.settings.items_topic
    item = encode_json(Item(item_id="startup-1", item_type="startup"))
    batching.add(0, 1)
    batching.batcher.add(items(batching.settings), [Message(items_topic, 0, 0, item, b"startup-1")])
    batching.add(1, 1)
    batching.batcher.send()
    assert batching.sizes == [[(topic, 0, 1)], [(items_topic, 0, 1)], [(topic, 1, 1)]]


def test_records_below_the_position_are_replayed_but_not_applied_again(batching: Batching) -> None:
    partition = interactions(batching.settings, 0, position=10, low=4)
    assert partition.read_from == 4
    replayed = [message(partition, offset) for offset in range(4, 10)]
    batching.batcher.add(partition, replayed)
    batching.batcher.send()
    assert batching.sizes == []
    batching.batcher.add(
        partition, [message(partition, 10, event_id="e0-9"), message(partition, 11)]
    )
    batching.batcher.send()
    (task,) = batching.transactions[0]
    assert task.batch.offsets[2:] == (10, 12)
    assert [event.interaction.event_id for event in task.batch.events] == ["e0-11"]


def test_a_message_that_is_no_event_becomes_a_dead_letter(batching: Batching) -> None:
    partition = batching.partitions[0]
    bad = Message(partition.topic, 0, 0, b"not JSON")
    batching.batcher.add(partition, [bad, message(partition, 1)])
    batching.batcher.send()
    (task,) = batching.transactions[0]
    assert (task.batch.offsets.next, len(task.batch.events)) == (2, 1)
    assert [letter.value for letter in task.dead_letters] == [b"not JSON"]


def test_the_position_moves_over_offsets_without_records(batching: Batching) -> None:
    partition = batching.partitions[0]
    batching.add(0, 3)
    batching.batcher.skip_to(partition, 5)
    batching.batcher.send()
    topic = partition.topic
    assert batching.sizes == [[(topic, 0, 3)], [(topic, 0, 2)]]
    assert (partition.read, partition.planned, partition.applied) == (5, 5, 0)


class Consumer:
    """Answers messages that it has fetched."""

    def __init__(self, fetched: list[Message]) -> None:
        self.fetched = fetched

    def consume(self, count: int, _timeout: float) -> list[Message]:
        answer, self.fetched = self.fetched[:count], self.fetched[count:]
        return answer


def test_a_poll_soon_after_another_one_gathers_messages(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = interactions(settings, 0)
    consumer = Consumer([])
    poller = Poller(consumer, 500)  # type: ignore[arg-type]
    now, slept = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    for after in (0.0, 0.002, 5.0):
        now[0] += after
        consumer.fetched = messages(partition, 1)
        assert list(poller.poll(0.2).messages) == [(partition.topic, 0)]
    assert slept == pytest.approx([0.0, GATHER_S - 0.002, 0.0])


def test_a_poll_does_not_wait_while_more_is_fetched_than_it_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition: InteractionPartition = interactions(settings, 0)
    consumer = Consumer(messages(partition, 25))
    poller = Poller(consumer, 10)  # type: ignore[arg-type]
    slept = list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)
    for _ in range(3):
        poller.poll(0.2)
    assert len(slept) == 1
    assert consumer.fetched == []
