"""Popularity that is due is written in pieces between events, which never wait for all of it."""

from __future__ import annotations

import pytest
from redis import Redis

from core.settings import Settings
from core.types import Interaction
from store.state.apply import pending
from store.state.apply.batches import Batch
from store.state.apply.pending import Mark, PendingPopularity
from streams.ingest import batcher
from streams.ingest.partition import InteractionPartition
from tests.streams.ingest.partitions import interactions, messages
from tests.streams.ingest.test_batcher import Batching

ITEMS = 50


@pytest.fixture
def batching(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Batching:
    """Two partitions whose popularity is due, in several pieces each."""
    monkeypatch.setattr(pending, "PIECE", 10)
    monkeypatch.setattr(pending, "FLUSH_S", 0.0)
    batching = Batching(settings, redis, monkeypatch)
    batching.partitions = [_with_popularity(settings, number) for number in (0, 1)]
    return batching


def _with_popularity(settings: Settings, number: int) -> InteractionPartition:
    sums = PendingPopularity(settings.use_cases, 30.0, Mark())
    for offset in range(ITEMS):
        interaction = Interaction(f"e{offset}", "u", f"item-{offset}", "like", 1.76e9)
        sums.add(offset, interaction, 1.76e9)
    partition = interactions(settings, number, position=ITEMS, popularity=sums)
    partition.read_up_to(ITEMS)
    return partition


def test_a_flush_writes_one_piece_of_one_partition(
    batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "PIECE_S", 0.0)

    def flush(*besides: InteractionPartition) -> bool:
        is_more_due = batching.batcher.flush_popularity(batching.partitions, besides)
        batching.batcher.send()
        return is_more_due

    def flushed() -> list[list[int]]:
        return [[task.partition.number for task in tasks] for tasks in batching.transactions]

    assert flush(), "more is due, so the next poll must be short"
    assert flushed() == [[0]]
    assert flush(batching.partitions[0])
    assert flushed() == [[0], [1]], "a batch of partition 0 has taken a piece along"
    while flush():
        assert len(flushed()) < 100
    assert set(map(tuple, flushed()[2:])) == {(0,), (1,)}
    assert not any(partition.has_due_popularity for partition in batching.partitions)


def test_a_partition_that_replays_writes_no_popularity(batching: Batching) -> None:
    replaying = interactions(
        batching.settings,
        0,
        ITEMS,
        popularity=PendingPopularity(batching.settings.use_cases, 30.0, Mark()),
    )
    assert not batching.batcher.flush_popularity([replaying], ())
    batching.batcher.send()
    assert batching.transactions == []


def test_pieces_are_apart_in_time_unless_a_batch_has_many_events(
    batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "PIECE_S", 3600.0)
    partition = batching.partitions[0]
    for _ in range(3):
        batching.batcher.flush_popularity([partition], ())
        batching.batcher.send()
    for count in (3, 400):
        batching.batcher.add(partition, messages(partition, count))
        batching.batcher.send()
    batches = [task.batch for tasks in batching.transactions for task in tasks]
    assert [
        (len(batch.events), len(batch.popularity.sums))
        for batch in batches
        if isinstance(batch, Batch)
    ] == [(0, 10), (3, 0), (400, 10)]
