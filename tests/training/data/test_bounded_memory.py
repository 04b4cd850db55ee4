"""A dataset is the same whether its events fit into memory or are sorted through files."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from core.dedup import Dedup
from core.deletions import IdHasher
from core.settings import Settings
from store.archive.archive import Archive
from store.state.apply.deletions import DeletedUsers
from tests.training import world
from training.data import columns, dataset, dataset_files, events
from training.data.dataset import COLUMNS, Dataset

WINDOW = 6
DELETED = {"u3": world.START + 7}
KINDS = ("view", "like", "rating", "dismiss", "no_longer_configured")
EVENT = st.tuples(
    st.integers(0, 2),  # partition
    st.integers(0, 9),  # event id
    st.sampled_from(["u1", "u2", "u3", "u10", "ü"]),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(KINDS),
    st.none() | st.floats(0, 5, width=32),
    st.none() | st.integers(-3, 12),
    st.sampled_from([None, "developer_startup", "investor_startup"]),
    st.integers(0, 9),  # 0: a message that is no valid event
)


def archived_rows(drawn: list[tuple[Any, ...]]) -> list[world.Row]:
    """The drawn events as rows of an archive."""
    rows: list[world.Row] = []
    ends = [0, 0, 0]
    for partition, number, user, item, kind, value, time, use_case, validity in drawn:
        offset, place = ends[partition], {"partition": partition, "offset": ends[partition]}
        ends[partition] += 1
        if validity == 0:
            rows.append({**place, "broker_time": world.START + offset, "error": "not_json: no"})
            continue
        row = world.row(offset, user, item, kind, value=value, use_case=use_case)
        timestamp = None if time is None else world.START + time
        rows.append({**row, **place, "event_id": f"e{number}", "timestamp": timestamp})
    return rows


def expected(settings: Settings, rows: list[world.Row]) -> list[tuple[Any, ...]]:
    """What the dataset must hold, event by event, from its definition."""
    by_user: dict[str, list[tuple[Any, ...]]] = {}
    for partition in range(3):
        dedup = Dedup(WINDOW)
        for row in rows:
            if row["partition"] != partition or row.get("error"):
                continue
            user, kind, value = str(row["user_id"]), str(row["event_type"]), row["value"]
            is_duplicate = dedup.is_duplicate(str(row["event_id"]), int(str(row["offset"])))
            is_erased = float(str(row["broker_time"])) <= DELETED.get(user, -1.0)
            if is_duplicate or is_erased or kind not in settings.use_cases.event_types:
                continue
            weight = settings.use_cases.weight(kind, value)
            by_user.setdefault(user, []).append(
                (user, row["item_id"], kind, row["use_case"], value, weight, row["timestamp"])
            )
    return [event for user in sorted(by_user) for event in by_user[user]]


def contents(data: Dataset) -> list[tuple[Any, ...]]:
    """What the dataset holds, event by event."""

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return [
        (
            data.users.ids[data.user[row]],
            data.items.ids[data.item[row]],
            data.event_types[data.event_type[row]],
            None if data.use_case[row] < 0 else data.use_cases[data.use_case[row]],
            number(data.value[row]),
            float(data.weight[row]),
            number(data.timestamp[row]),
        )
        for row in range(data.events)
    ]


@contextmanager
def tiny_limits() -> Iterator[None]:
    """A handful of events is more than fits into memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.data.by_user.BUCKET_EVENTS", 3)
        patch.setattr("training.data.by_user.PIECE", 4)
        patch.setattr("training.data.columns.PIECE", 4)
        patch.setattr("training.data.sums.PIECE", 4)
        patch.setattr("training.data.events.CHUNK_ROWS", 5)
        patch.setattr("store.archive.archive.READ_ROWS", 2)
        yield


def built(settings: Settings, archive: Archive) -> Dataset:
    topic, hasher = settings.interactions_topic, IdHasher(SecretStr(""))
    deleted = DeletedUsers(hasher, {hasher("user", user): time for user, time in DELETED.items()})
    positions = archive.positions(topic)
    tables, skipped = events.from_archive(archive, topic, positions, WINDOW, deleted)
    return dataset.build(tables, settings.use_cases, positions, "archive", skipped)


@given(st.lists(EVENT, min_size=1, max_size=60))
@example_settings(max_examples=40)
def test_a_dataset_sorted_through_files_equals_that_in_memory_and_its_definition(
    drawn: list[tuple[Any, ...]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings, rows = Settings(archive_url=folder), archived_rows(drawn)
        events_expected = expected(settings, rows)
        with tiny_limits():
            archive = world.archived(settings, rows)
            if not events_expected:
                return
            data = built(settings, archive)
            matrix, touched = data.matrix(), data.touched(np.ones(data.events, np.bool_))
            sha256, summary = data.sha256, data.summary()
        whole = built(settings, archive)
    assert contents(data) == contents(whole) == events_expected
    assert (sha256, summary) == (whole.sha256, whole.summary())
    for name in COLUMNS:
        assert getattr(data, name).dtype == getattr(whole, name).dtype
    for one, other in [
        (matrix, whole.matrix()),
        (touched, whole.touched(np.ones(whole.events, np.bool_))),
    ]:
        for name in ("data", "indices", "indptr"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype


@given(
    st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=40), st.integers(0, 39)
)
def test_the_time_of_the_cut_is_that_of_a_sort(drawn: list[float | None], place: int) -> None:
    times = np.array([np.nan if time is None else time for time in drawn], np.float64)
    timed = np.sort(times[~np.isnan(times)])
    if place < len(timed):
        with tiny_limits():
            assert columns.nth_smallest(times, place) == timed[place]
            assert columns.times(times) == (len(timed), timed[0], timed[-1])


def test_a_dataset_sorted_through_files_is_saved_and_split_like_any_other(
    tmp_path: Path,
) -> None:
    settings = Settings(archive_url=str(tmp_path / "archive"))
    archive = world.archived(settings, world.parity())
    with tiny_limits():
        data = built(settings, archive)
        split = data.split(0.1)
        dataset_files.save(data, tmp_path / "dataset")
    whole = built(settings, archive)
    assert split.cut == whole.split(0.1).cut
    assert np.array_equal(split.train, whole.split(0.1).train)
    assert dataset_files.load(tmp_path / "dataset").sha256 == whole.sha256


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapped_array_leaves_the_memory_once_it_is_read() -> None:
    writer = columns.ColumnWriter(in_file=True)
    for _ in range(16):
        writer.append(np.ones(1_000_000))
    array = writer.array()

    def mapped_kb() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    before = mapped_kb()
    assert sum(piece.sum() for piece in columns.pieces(array)) == len(array)
    assert mapped_kb() - before < 40_000
    assert array.sum() == len(array)
    assert mapped_kb() - before > 100_000
