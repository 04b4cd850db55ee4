"""Spark accepts the same events, and weighs and numbers them alike, as the dataset in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.deletions import IdHasher
from core.errors import ArchiveError, DatasetError
from core.settings import Settings
from store.state.apply.deletions import DeletedUsers
from tests.training import world
from tests.training.world import Row, row
from training.data import dataset
from training.data import events as events_in_memory
from training.data.dataset import Dataset
from training.spark import events as spark_events
from training.spark.pairs import Pairs, pairs
from training.spark.session import Cluster

Entries = dict[tuple[str, str], float]


def partition(number: int, rows: list[Row]) -> list[Row]:
    return [{**event, "partition": number} for event in rows]


def everything() -> list[Row]:
    """Events of every kind in two partitions, of which the last of the second is beyond W."""
    first = [
        row(0, "ann", "zebra", "view"),
        row(1, "ann", "zebra", "like"),
        row(2, "bob", "\N{SNOWMAN}", "view", event_id="e1"),
        row(3, "bob", "apple", "like", value=2.5),
        row(4, "\N{CYCLONE}", "apple", "view", value=1e9),
        row(7, "ann", "apple", "view", event_id="e3"),
        row(8, "cat", "apple", "dismiss"),
        row(9, "cat", "pear", "dismiss", value=3.0),
        row(10, "cat", "apple", "a type of another release"),
        row(11, "gone", "pear", "view"),
        row(12, "back", "pear", "view"),
        {
            **dict.fromkeys(("event_id", "user_id", "item_id", "event_type", "timestamp")),
            "partition": 0,
            "offset": 13,
            "broker_time": world.START + 13,
            "error": "not_json: no JSON",
        },
        row(14, "back", "pear", "like", event_id="e8"),
        row(15, "late", "apple", "view", timestamp=world.START + 500),
        row(16, "timeless", "apple", "view", timestamp=None),
    ]
    second = [
        row(0, "ann", "zebra", "view"),
        row(1, "dan", "zebra", "view", value=0.01),
        row(2, "dan", "zebra", "view", value=0.1),
        row(3, "dan", "apple", "like"),
        row(4, "dan", "apple", "like"),
    ]
    return [*partition(0, first), *partition(1, second)]


POSITIONS = {0: 17, 1: 4}
DELETED = {"gone": world.START + 11, "back": world.START + 12, "unseen": world.START + 3}
WINDOW = 4
"""Offsets: the second e1 and e3 are duplicates; e8 came too long before its second."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(archive_url=str(tmp_path / "an archive"), dedup_window=WINDOW)


def deleted(settings: Settings) -> DeletedUsers:
    hasher = IdHasher(settings.deletion_salt)
    return DeletedUsers(hasher, {hasher("user", name): time for name, time in DELETED.items()})


def in_memory(settings: Settings) -> Dataset:
    archive = world.archived(settings, everything())
    tables, skipped = events_in_memory.from_archive(
        archive, settings.interactions_topic, POSITIONS, WINDOW, deleted(settings)
    )
    return dataset.build(tables, settings.use_cases, POSITIONS, "archive", skipped)


def ids(data: Pairs, side: str) -> dict[int, str]:
    frame = getattr(data, side).frame
    return {line["row"]: line["id"] for line in frame.collect()}


def entries(data: Pairs) -> Entries:
    users, items = ids(data, "users"), ids(data, "items")
    assert list(users) == list(range(len(users)))
    return {
        (users[line["user"]], items[line["item"]]): line["weight"] for line in data.frame.collect()
    }


def test_spark_accepts_weighs_and_numbers_events_as_the_dataset_does(
    cluster: Cluster, settings: Settings
) -> None:
    data = in_memory(settings)
    source = spark_events.of_archive(settings, POSITIONS, deleted(settings))
    with pairs(source.accepted(cluster), settings.use_cases, None) as by_spark:
        assert entries(by_spark) == world.entries(data)
        assert by_spark.count == data.matrix().nnz
        assert by_spark.skipped == data.skipped
        assert all(data.skipped.values()), f"each reason occurs: {data.skipped}"
        users, items = ids(by_spark, "users"), ids(by_spark, "items")
    matrix = data.matrix()
    assert list(users.values()) == [
        name for name, n in zip(data.users.ids, matrix.getnnz(axis=1), strict=True) if n
    ]
    assert list(items.values()) == [
        name for name, n in zip(data.items.ids, matrix.getnnz(axis=0), strict=True) if n
    ]


def test_spark_trains_on_the_events_before_the_cut_and_those_without_a_time(
    cluster: Cluster, settings: Settings
) -> None:
    data = in_memory(settings)
    cut = world.START + 15
    before = data.matrix(~(data.timestamp >= cut)).tocoo()
    expected = {
        (data.users.ids[user], data.items.ids[item]): float(weight)
        for user, item, weight in zip(before.row, before.col, before.data, strict=True)
    }
    assert ("timeless", "apple") in expected
    assert ("late", "apple") not in expected
    source = spark_events.of_archive(settings, POSITIONS, deleted(settings))
    with pairs(source.accepted(cluster), settings.use_cases, cut) as by_spark:
        assert entries(by_spark) == expected


def test_spark_reads_a_table_as_an_import_does(
    cluster: Cluster, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "user_id,item_id,event_type,value,timestamp\n"
        "ann,apple,like,2,2024-01-01T00:00:00Z\n"
        "bob,apple,view,,1700000000\n"
        ",apple,view,,1700000000\n"
        "bob,pear,view,,\n"
    )
    table, skipped = events_in_memory.from_file(path)
    data = dataset.build([table], settings.use_cases, source="events.csv", skipped=skipped)
    source = spark_events.TableEvents(path)
    with pairs(source.accepted(cluster), settings.use_cases, None) as by_spark:
        assert entries(by_spark) == world.entries(data)
        assert by_spark.skipped == data.skipped


def test_an_archive_that_ends_before_the_positions_is_refused(
    cluster: Cluster, settings: Settings
) -> None:
    world.archived(settings, everything())
    source = spark_events.of_archive(settings, {0: 18}, deleted(settings))
    with pytest.raises(ArchiveError, match="archived up to offset 17, not 18"):
        source.accepted(cluster)


def test_events_of_weight_0_alone_are_nothing_to_learn(
    cluster: Cluster, settings: Settings
) -> None:
    world.archived(settings, [row(0, "ann", "a", "dismiss")])
    source = spark_events.of_archive(settings, {0: 1}, deleted(settings))
    with (
        pytest.raises(DatasetError, match="no event has a weight above 0"),
        pairs(source.accepted(cluster), settings.use_cases, None),
    ):
        pass
