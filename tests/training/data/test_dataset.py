"""The training set holds exactly the events that the stream counts."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from core.dedup import Dedup
from core.deletions import IdHasher
from core.errors import ArchiveError, DatasetError
from core.settings import Settings
from core.types import HistoryEvent
from models.popular import MOST
from store.archive.archive import Archive
from store.state.apply.deletions import DeletedUsers
from store.state.entities.popularity import growth, top
from tests.training import world
from tests.training.world import row
from training.data import dataset, dataset_files, events
from training.data.popularity import popular

NOBODY = DeletedUsers(IdHasher(SecretStr("")), {})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(archive_url=str(tmp_path / "archive"), models_path=tmp_path / "models")


def test_a_matrix_entry_is_the_summed_weight_of_a_users_events_with_an_item(
    settings: Settings,
) -> None:
    data = world.built(
        settings,
        [
            row(0, "ann", "a", "view"),
            row(1, "ann", "a", "like"),
            row(2, "bob", "a", "rating", value=4.5),
            row(3, "bob", "b", "dismiss"),
            row(4, "ann", "b", "view", value=0.1),
        ],
    )
    assert world.entries(data) == {("ann", "a"): 4.0, ("bob", "a"): 4.5, ("ann", "b"): 6 / 64}
    assert data.items.ids == ["a", "b"]
    assert data.events == 5, "what says nothing good is no entry, but it happened"


def test_events_that_ingest_skips_are_skipped_and_counted(settings: Settings) -> None:
    bad = {
        "partition": 0,
        "offset": 1,
        "broker_time": world.START,
        "error": "not_json: no",
        "raw": b"{",
        "raw_truncated": False,
    }
    data = world.built(
        settings,
        [
            row(0, "ann", "a"),
            bad,
            row(2, "ann", "a", event_id="e0"),
            row(3, "eve", "a"),
            row(4, "eve", "b"),
            row(5, "ann", "c", "renamed_type"),
        ],
        deleted={"eve": world.START + 3},
    )
    assert world.entries(data) == {("ann", "a"): 1.0, ("eve", "b"): 1.0}, (
        "what a deleted user does later counts again"
    )
    assert data.skipped == {
        "dead_letters": 1,
        "duplicates": 1,
        "deleted_users": 1,
        "unknown_event_types": 1,
    }
    assert data.positions == {0: 6}


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(0, 12))
def test_the_dataset_and_ingest_skip_the_same_duplicates(ids: list[int], window: int) -> None:
    dedup = Dedup(window)
    expected = [dedup.is_duplicate(f"e{number}", offset) for offset, number in enumerate(ids)]
    table = pa.table(
        {"event_id": [f"e{number}" for number in ids], "offset": list(range(len(ids)))}
    )
    assert events._duplicates(table, window).tolist() == expected


def test_a_dataset_ends_at_the_positions_of_the_snapshot(settings: Settings) -> None:
    archive = world.archived(settings, [row(offset, "ann", f"i{offset}") for offset in range(10)])
    tables, _ = events.from_archive(archive, settings.interactions_topic, {0: 4}, 100, NOBODY)
    assert pa.concat_tables(tables)["item_id"].to_pylist() == ["i0", "i1", "i2", "i3"]


def test_a_snapshot_beyond_the_archive_raises_an_error(settings: Settings) -> None:
    archive = world.archived(settings, [row(0, "ann", "a")])
    with pytest.raises(ArchiveError, match="streams archive"):
        events.from_archive(archive, settings.interactions_topic, {0: 5}, 100, NOBODY)
    with pytest.raises(ArchiveError, match="partition 3"):
        events.from_archive(archive, settings.interactions_topic, {3: 5}, 100, NOBODY)


def test_the_error_for_an_empty_archive_says_what_to_do(settings: Settings) -> None:
    tables, skipped = events.from_archive(
        Archive(settings.archive_url), settings.interactions_topic, {}, 100, NOBODY
    )
    with pytest.raises(DatasetError, match="ingest and archive some first"):
        dataset.build(tables, settings.use_cases, {}, "archive", skipped)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_events_of_a_file_are_sorted_by_time(
    settings: Settings, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"events.{kind}"
    if kind == "csv":
        path.write_text(
            "user_id,item_id,event_type,timestamp,extra\n7,b,like,200,x\n7,a,view,100,y\n8,c,view,,z\n7,c,view,100,w\n",
            "utf-8",
        )
    else:
        pq.write_table(
            pa.table(
                {
                    "user_id": [7, 7, 8, 7],
                    "item_id": ["b", "a", "c", "c"],
                    "event_type": ["like", "view", "view", "view"],
                    "timestamp": pa.array([200, 100, None, 100], pa.int64()),
                }
            ),
            path,
        )
    data = dataset.build([events.from_file(path)[0]], settings.use_cases)
    everything = np.ones(data.events, np.bool_)
    assert data.state(0, everything, 10).history == [
        HistoryEvent(100, "view", "a"),
        HistoryEvent(100, "view", "c"),
        HistoryEvent(200, "like", "b"),
    ]
    assert data.state(1, everything, 10).history == [HistoryEvent(0, "view", "c")]


def test_the_error_for_an_invalid_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,timestamp\n1,2\n", "utf-8")
    with pytest.raises(DatasetError, match=r"events\.csv has no column item_id, event_type"):
        events.from_file(tmp_path / "events.csv")
    (tmp_path / "events.parquet").write_text("no", "utf-8")
    with pytest.raises(DatasetError, match=r"events\.parquet cannot be read"):
        events.from_file(tmp_path / "events.parquet")


def test_rows_of_a_file_that_ingest_rejects_are_skipped(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(
        pa.table(
            {
                "user_id": ["a", None, "a", "a"],
                "item_id": ["x", "x", "y", "z"],
                "event_type": ["rating"] * 4,
                "timestamp": [1.0, 2.0, 3.0, 4.0],
                "value": [3.0, 3.0, -1.0, float("nan")],
            }
        ),
        path,
    )
    data = dataset.build(*_build(settings, path))
    assert world.entries(data) == {("a", "x"): 3.0, ("a", "z"): 1.0}, (
        "a value that is not a number is no value"
    )
    assert (data.skipped["bad_id"], data.skipped["bad_value"]) == (1, 1)


def _build(settings: Settings, path: Path) -> tuple[object, ...]:
    table, skipped = events.from_file(path)
    return [table], settings.use_cases, None, str(path), skipped


def test_numpy_and_scipy_can_read_the_files(settings: Settings, tmp_path: Path) -> None:
    data = world.built(settings, world.parity())
    dataset_files.save(data, tmp_path / "dataset")
    matrix = sp.load_npz(tmp_path / "dataset" / "als_interactions.npz")
    users = json.loads((tmp_path / "dataset" / "als_user_mapping.json").read_text("utf-8"))
    items = json.loads((tmp_path / "dataset" / "als_item_mapping.json").read_text("utf-8"))
    assert matrix[users["u1"], items["i1"]] == 3.0
    with np.load(tmp_path / "dataset" / "sequences.npz", allow_pickle=False) as arrays:
        assert len(arrays["item"]) == data.events
    assert dataset_files.load(tmp_path / "dataset").sha256 == data.sha256


def test_an_incomplete_dataset_raises_an_error(settings: Settings, tmp_path: Path) -> None:
    dataset_files.save(world.built(settings, world.parity()), tmp_path / "dataset")
    about = json.loads((tmp_path / "dataset" / "dataset.json").read_text("utf-8"))
    (tmp_path / "dataset" / "dataset.json").write_text(
        json.dumps({**about, "sha256": "0"}), "utf-8"
    )
    with pytest.raises(DatasetError, match="make the dataset again"):
        dataset_files.load(tmp_path / "dataset")
    (tmp_path / "dataset" / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="python -m training dataset"):
        dataset_files.load(tmp_path / "dataset")


def test_the_split_holds_out_the_last_tenth_of_the_events(settings: Settings) -> None:
    data = world.built(
        settings, [row(offset, f"u{offset % 7}", f"i{offset}") for offset in range(100)]
    )
    split = data.split(0.1)
    assert split.cut == world.START + 90
    assert (split.train.sum(), data.timestamp[split.train].max()) == (90, world.START + 89)


def test_a_split_with_an_empty_side_raises_an_error(settings: Settings) -> None:
    data = world.built(
        settings, [row(offset, "ann", f"i{offset}", timestamp=world.START) for offset in range(9)]
    )
    with pytest.raises(DatasetError, match="leaves one side empty"):
        data.split(0.1)


def test_the_state_before_the_cut_equals_that_in_redis(settings: Settings) -> None:
    data = world.built(
        settings,
        [
            row(0, "ann", "a", "view"),
            row(1, "bob", "z"),
            row(2, "ann", "b", "rating", value=4.0),
            row(3, "ann", "c", "view"),
            row(4, "ann", "d", "like"),
        ],
    )
    before = data.timestamp < world.START + 4
    state = data.state(data.users.row("ann"), before, cap=2)
    start = int(world.START)
    assert (state.user_id, state.events, state.counts) == ("ann", 3, {"rating": 1, "view": 2})
    assert state.history == [
        HistoryEvent(start + 2, "rating", "b", 4.0),
        HistoryEvent(start + 3, "view", "c"),
    ]


def test_popularity_equals_that_of_ingest(settings: Settings) -> None:
    far = world.START + 40 * world.DAY
    rows = [
        row(0, "ann", "a", "view"),
        row(1, "bob", "a", "like", timestamp=far),
        row(2, "bob", "b", "dismiss"),
        row(3, "eve", "b", "invest", use_case="investor_startup"),
        row(4, "eve", "c", "view", use_case="no_longer_configured"),
    ]
    scores = popular(world.built(settings, rows), settings).scores
    now, later = growth(world.START, 30.0), growth(far, 30.0)
    assert scores == {
        "unlabelled": [("a", now + 3 * later), ("c", now)],
        "investor_startup": [("b", 10 * now)],
    }


def test_popularity_has_as_many_items_as_a_read_from_redis(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blend is chosen by the popularity that serves it: what Redis leaves out must not speak
    offline.
    """
    assert inspect.signature(top).parameters["count"].default == MOST
    monkeypatch.setattr("training.data.popularity.MOST", 2)
    rows = [
        row(at, f"u{at}", item, "view") for at, item in enumerate(["a", "b", "b", "c", "c", "c"])
    ]
    assert [
        item for item, _ in popular(world.built(settings, rows), settings).scores["unlabelled"]
    ] == ["c", "b"]
