"""A partition says where it stands: what is read, planned and applied, and whether it failed."""

from __future__ import annotations

from core.errors import LogUnavailable, Stale, StoreCorrupt
from core.settings import Settings
from store.state.apply.pending import Mark, PendingPopularity
from streams.ingest.partition import State
from tests.streams.ingest.partitions import WINDOW, interactions, items


def test_a_partition_replays_up_to_its_position_and_then_applies(settings: Settings) -> None:
    partition = interactions(settings, 0, position=500)
    assert partition.state is State.REPLAYING
    partition.read_up_to(499)
    assert partition.state is State.REPLAYING
    partition.read_up_to(500)
    assert partition.state is State.APPLYING


def test_a_partition_that_failed_stays_failed(settings: Settings) -> None:
    partition = interactions(settings, 0)
    error = Stale(7, "moved")
    partition.fail(error)
    partition.read_up_to(10)
    assert (partition.state, partition.error) == (State.FAILED, error)


def test_an_error_that_no_retry_repairs_is_not_hidden_by_a_later_one(settings: Settings) -> None:
    partition, corrupt = interactions(settings, 0), StoreCorrupt("half a batch is applied")
    partition.fail(LogUnavailable("no broker"))
    partition.fail(corrupt)
    partition.fail(Stale(7, "moved"))
    assert partition.error is corrupt


def test_reading_starts_a_window_before_what_redis_lacks(settings: Settings) -> None:
    assert interactions(settings, 0, position=500).read_from == 500 - WINDOW
    lacks_popularity = PendingPopularity(settings.use_cases, 30.0, Mark(300, 300))
    assert interactions(settings, 0, 500, lacks_popularity).read_from == 300 - WINDOW
    assert interactions(settings, 0, 500, low=450).read_from == 450, "the log holds no more"


def test_items_are_read_from_the_position(settings: Settings) -> None:
    partition = items(settings)
    offsets = partition.plan(3)
    assert (offsets.first, offsets.next, partition.planned, partition.read_from) == (0, 3, 3, 0)
