"""Popularity that waits is written beside the events, never in front of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from core.settings import Settings
from core.types import Interaction
from store.state.apply import pending
from store.state.apply.batches import Event
from store.state.apply.pending import Mark, PendingPopularity
from streams.ingest import batcher
from streams.ingest.apply_thread import Work
from streams.ingest.batcher import Assigned
from streams.ingest.loop import _GATHER_S, Ingest

ITEMS = 50


@pytest.fixture
def ingest(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    """Two partitions with a cut of several pieces each that is due; work is only gathered, in
    `put`.
    """
    monkeypatch.setattr(pending, "PIECE", 10)
    monkeypatch.setattr(pending, "FLUSH_S", 0.0)
    loop = Ingest(settings)
    for number in (0, 1):
        sums = PendingPopularity(settings.use_cases, 30.0, Mark())
        for offset in range(ITEMS):
            sums.add(
                offset, Interaction(f"e{offset}", "u", f"item-{offset}", "like", 1.76e9), 1.76e9
            )
        assigned = loop._assigned[settings.interactions_topic, number] = Assigned(0, 1, 10, sums)
        assigned.read = assigned.next = ITEMS
    yield loop
    loop._client.close()


def test_one_piece_between_two_looks_for_events(
    ingest: Ingest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "PIECE_S", 0.0)
    put: list[list[int]] = []
    monkeypatch.setattr(
        ingest._sender,
        "put",
        lambda *works: put.append([work.batch.offsets.partition for work in works]),
    )
    topic = settings.interactions_topic
    assert ingest._flush_popularity(besides=()) == _GATHER_S, (
        "more waits, so the next poll is short"
    )
    ingest._intake.send()
    assert put == [[0]], "one piece in a transaction, whoever's it is"
    assert ingest._flush_popularity(besides={(topic, 0)}) == _GATHER_S
    ingest._intake.send()
    assert put == [[0], [1]], "the events of partition 0 have taken a piece along"
    while ingest._flush_popularity(besides=()) == _GATHER_S:
        ingest._intake.send()
        assert len(put) < 100
    assert [0] in put[2:]
    assert [1] in put[2:]
    assert max(map(len, put)) == 1
    assert all(not each.popularity.due(each.next) for each in ingest._assigned.values())
    assert ingest._flush_popularity(besides=()) > _GATHER_S, (
        "nothing waits any more, so the next poll may"
    )


def test_pieces_keep_their_distance_unless_many_events_pay_for_one(
    ingest: Ingest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "PIECE_S", 3600.0)
    put: list[Work] = []
    monkeypatch.setattr(ingest._sender, "put", lambda *works: put.extend(works))
    partition = settings.interactions_topic, 0
    assigned = ingest._assigned[partition]
    events = [
        Event(Interaction(f"e{at}", "u", "startup-1", "like", 1.76e9), 1.76e9) for at in range(400)
    ]
    for _ in range(3):
        ingest._intake.flush(partition, assigned)
        ingest._intake.send()
    for count in (3, 400):
        ingest._intake._put(partition, assigned, assigned.next + count, events[:count], [])
        ingest._intake.send()
    assert [(len(work.batch.events), len(work.batch.popularity.sums)) for work in put] == [
        (0, 10),
        (3, 0),
        (400, 10),
    ]
