"""The archive has every offset once, also after writers are killed or paused at any step."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from core.errors import ArchiveError, ConfigurationError, Overtaken
from store.archive import layout
from store.archive.archive import Archive
from store.archive.schema import READ_ROWS, SCHEMA

TOPIC = "interactions"


def rows(first: int, end: int, partition: int = 0) -> pa.Table:
    """One event for each offset, made from the offset alone."""
    return pa.Table.from_pylist(
        [
            {
                "partition": partition,
                "offset": offset,
                "broker_time": 1000.0 + offset,
                "event_id": f"e{offset}",
                "user_id": f"u{offset % 7}",
            }
            for offset in range(first, end)
        ],
        schema=SCHEMA,
    )


def offsets(archive: Archive, **kwargs: object) -> list[int]:
    return [
        offset
        for table in archive.read(TOPIC, **kwargs)
        for offset in table.column("offset").to_pylist()
    ]  # type: ignore[arg-type]


def append(archive: Archive, first: int, end: int) -> None:
    archive.append(TOPIC, 0, first, end, rows(first, end))


def show_late(archive: Archive, first: int, end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first listing, and every other one after it, lack the file [first, end)."""
    whole, lacks = archive.storage.files, itertools.cycle([True, False])
    name = layout.file_name(first, end)

    def files(folder: str, recursive: bool = False) -> list[pafs.FileInfo]:
        infos = whole(folder, recursive)
        return [info for info in infos if info.base_name != name] if next(lacks) else infos

    monkeypatch.setattr(archive.storage, "files", files)


@pytest.fixture(params=["local", "object store"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    return Archive(str(tmp_path)) if request.param == "local" else object_store(tmp_path)


def object_store(folder: Path) -> Archive:
    """A folder that is written like an object store: without making folders and without links."""
    for partition in (0, 3):
        (folder / TOPIC / f"partition={partition}").mkdir(parents=True)
    return Archive(folder.name, pafs.SubTreeFileSystem(str(folder.parent), pafs.LocalFileSystem()))


def test_the_position_is_the_end_of_the_contiguous_ranges(archive: Archive) -> None:
    assert archive.position(TOPIC, 0) == 0
    append(archive, 0, 100)
    append(archive, 100, 180)
    archive.append(TOPIC, 3, 0, 5, rows(0, 5, partition=3), topic_id="the-topic")
    assert archive.position(TOPIC, 0) == 180
    assert archive.positions(TOPIC) == {0: 180, 3: 5}
    assert archive.topic_id(TOPIC, 3) == "the-topic"
    assert archive.topic_id(TOPIC, 0) is None
    assert archive.topics() == [TOPIC]


def test_rows_are_read_in_offset_order_and_between_offsets(archive: Archive) -> None:
    append(archive, 0, 100)
    append(archive, 100, 180)
    assert offsets(archive) == list(range(180))
    assert offsets(archive, upto={0: 150}, start={0: 90}) == list(range(90, 150))
    assert offsets(archive, upto={}) == []
    tables = list(archive.read(TOPIC, upto={0: 120}, columns=["user_id"]))
    assert [table.column_names for table in tables] == [["user_id"], ["user_id"]]
    assert sum(table.num_rows for table in tables) == 120
    with pytest.raises(ArchiveError, match="archived up to offset 180, not 181"):
        offsets(archive, upto={0: 181})


def test_text_columns_can_be_read_as_dictionaries(archive: Archive) -> None:
    append(archive, 0, 100)
    plain, encoded = (
        pa.concat_tables(archive.read(TOPIC, upto={0: 90}, encoded=names))
        for names in ([], ["user_id"])
    )
    assert encoded.schema.field("user_id").type == pa.dictionary(pa.int32(), pa.string())
    assert encoded.schema.field("event_id").type == pa.string()
    assert encoded.to_pylist() == plain.to_pylist()


def test_a_range_may_hold_fewer_rows_than_offsets(archive: Archive) -> None:
    sparse = pa.concat_tables([rows(3, 4), rows(7, 9)])
    archive.append(TOPIC, 0, 0, 12, sparse)
    archive.append(TOPIC, 0, 12, 20, rows(0, 0))
    assert (archive.position(TOPIC, 0), offsets(archive)) == (20, [3, 7, 8])


def test_a_large_file_is_read_in_bounded_tables(archive: Archive) -> None:
    append(archive, 0, READ_ROWS + 10)
    assert [table.num_rows for table in archive.read(TOPIC)] == [READ_ROWS, 10]


def test_a_range_that_does_not_start_at_the_position_is_refused(archive: Archive) -> None:
    append(archive, 0, 100)
    with pytest.raises(Overtaken):
        append(archive, 0, 50)
    with pytest.raises(Overtaken):
        append(archive, 101, 120)
    assert offsets(archive) == list(range(100))


def test_the_error_of_a_gap_or_an_overlap_names_the_files(archive: Archive, tmp_path: Path) -> None:
    for first, end in [(0, 10), (10, 20), (20, 30)]:
        append(archive, first, end)
    folder = tmp_path / TOPIC / "partition=0"
    middle = folder / f"{10:020d}-{20:020d}.parquet"
    hidden = middle.rename(tmp_path / "hidden")
    with pytest.raises(
        ArchiveError,
        match=(
            rf"offsets 10 to 19 are missing between .*{0:020d}-{10:020d}.* and "
            rf".*{20:020d}-{30:020d}"
        ),
    ):
        archive.position(TOPIC, 0)
    hidden.rename(folder / f"{10:020d}-{25:020d}.parquet")
    with pytest.raises(ArchiveError, match="overlap"):
        list(archive.read(TOPIC))


def test_a_listing_made_while_a_writer_publishes_shows_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is read in an order of its own: of two new files it may show the later one only."""
    archive = Archive(str(tmp_path))
    for first in (0, 10, 20):
        append(archive, first, first + 10)
    show_late(archive, 10, 20, monkeypatch)
    assert archive.positions(TOPIC) == {0: 30}
    assert archive.position(TOPIC, 0) == 30


def test_the_error_of_a_damaged_file_names_it(archive: Archive, tmp_path: Path) -> None:
    append(archive, 0, 1000)
    path = tmp_path / TOPIC / "partition=0" / f"{0:020d}-{1000:020d}.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[100:140] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(ArchiveError, match=path.name):
        list(archive.read(TOPIC))


def test_rows_outside_their_range_are_refused(archive: Archive) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        archive.append(TOPIC, 0, 0, 5, rows(0, 6))
    with pytest.raises(ValueError, match="do not fit"):
        archive.append(TOPIC, 0, 0, 5, rows(0, 5).select(["offset"]))


def test_an_unknown_kind_of_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="ARCHIVE_URL"):
        Archive("gopher://x/y")


def test_the_next_writer_repairs_the_overlap_of_a_killed_one_in_an_object_store(
    tmp_path: Path,
) -> None:
    archive = object_store(tmp_path / "bucket")
    append(archive, 0, 100)
    append(archive, 100, 180)
    append(archive, 180, 300)
    killed = Archive(str(tmp_path / "elsewhere"))
    append(killed, 0, 100)
    append(killed, 100, 250)
    name = f"{100:020d}-{250:020d}.parquet"
    (tmp_path / "elsewhere" / TOPIC / "partition=0" / name).rename(
        tmp_path / "bucket" / TOPIC / "partition=0" / name
    )
    with pytest.raises(ArchiveError, match="overlap"):
        archive.position(TOPIC, 0)
    archive.recover(TOPIC, 0)
    assert offsets(archive) == list(range(300))


WRITER = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.store.archive.test_archive import rows, TOPIC
from store.archive.archive import Archive
from core.errors import Overtaken
archive = Archive({folder!r})
def on_step(step):
    if step == {step}:
        os.kill(os.getpid(), signal.{signal})
archive.on_step = on_step
try:
    archive.append(TOPIC, 0, 100, 250, rows(100, 250))
except Overtaken:
    sys.exit(17)
"""


def writer(folder: Path, step: int, signal_name: str) -> subprocess.Popen[bytes]:
    """A process that publishes [100, 250) and sends itself a signal after a step of `publish`."""
    code = WRITER.format(
        root=str(Path(__file__).parents[3]), folder=str(folder), step=step, signal=signal_name
    )
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.process
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_the_archive_continues_after_a_writer_was_killed_after_any_step(
    tmp_path: Path, step: int
) -> None:
    archive = Archive(str(tmp_path))
    append(archive, 0, 100)
    assert writer(tmp_path, step, "SIGKILL").wait(30) == -signal.SIGKILL
    archive.recover(TOPIC, 0)
    assert archive.position(TOPIC, 0) == (100 if step == 1 else 250)
    append(archive, archive.position(TOPIC, 0), 300)
    assert offsets(archive) == list(range(300))
    assert not [
        path for path in (tmp_path / TOPIC / "partition=0").iterdir() if path.name.startswith(".")
    ]


@pytest.mark.process
@pytest.mark.parametrize("recovers", [True, False])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_writer_paused_after_any_step_never_overlaps_its_successor(
    tmp_path: Path, step: int, recovers: bool
) -> None:
    """The successor publishes [100, 180) and [180, 300) while the paused writer has [100, 250)."""
    archive = Archive(str(tmp_path))
    append(archive, 0, 100)
    paused = writer(tmp_path, step, "SIGSTOP")
    try:
        _await_stop(paused.pid)
        if recovers:
            archive.recover(TOPIC, 0)
        for end in (180, 300):
            first = archive.position(TOPIC, 0)
            if first < end:
                try:
                    append(archive, first, end)
                except Overtaken:
                    assert archive.position(TOPIC, 0) == 250
        os.kill(paused.pid, signal.SIGCONT)
        assert paused.wait(30) in (0, 17)
    finally:
        paused.kill()
        paused.wait()
    first = archive.position(TOPIC, 0)
    if first < 300:
        append(archive, first, 300)
    assert offsets(archive) == list(range(300))
    archive.recover(TOPIC, 0)
    assert not [
        path for path in (tmp_path / TOPIC / "partition=0").iterdir() if path.name.startswith(".")
    ]


def _await_stop(pid: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        waited, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if waited == pid:
            assert os.WIFSTOPPED(status), f"the writer ended with status {status}"
            return
        assert time.monotonic() < deadline
        time.sleep(0.005)
