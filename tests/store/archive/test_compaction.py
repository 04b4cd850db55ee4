"""`streams archive compact` merges small files while others write and read, and may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.errors import ArchiveError
from store.archive.archive import Archive
from store.archive.compaction import Compaction, Options, Result
from testing.object_store import ObjectStore
from tests.store.archive.test_archive import TOPIC, append, offsets, rows, show_late

AT_ONCE = Options(settle_s=0.0)
KINDS = ["folder", "S3"]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path, object_store: ObjectStore) -> str:
    return str(tmp_path) if request.param == "folder" else object_store.url(uuid.uuid4().hex)


def filled(url: str, *ends: int) -> Archive:
    """An archive of one file from each end to the next."""
    archive = Archive(url)
    for end in ends:
        append(archive, archive.position(TOPIC, 0), end)
    return archive


def files(archive: Archive) -> list[tuple[int, int]]:
    """The ranges of all files that are there, hidden ones and replaced ones too."""
    names = [info.base_name for info in archive.storage.files(archive.storage.root, recursive=True)]
    hidden = [name for name in names if name.startswith(".")]
    assert not hidden
    return sorted((int(name[:20]), int(name[21:41])) for name in names)


def everything(archive: Archive) -> list[dict[str, object]]:
    """All rows with all columns, in the order of the archive."""
    return [row for table in archive.read(TOPIC) for row in table.to_pylist()]


def test_small_files_become_one_and_the_rows_stay_the_same(url: str) -> None:
    archive = Archive(url)
    for first, end, topic_id in [(0, 100, None), (100, 180, "id"), (180, 300, "id")]:
        archive.append(TOPIC, 0, first, end, rows(first, end), topic_id)
    archive.append(TOPIC, 0, 300, 310, rows(0, 0), "id")
    archive.append(TOPIC, 0, 310, 320, rows(312, 315), "id")
    archive.append(TOPIC, 3, 0, 5, rows(0, 5, partition=3))
    before = everything(archive)
    result = Compaction(archive, TOPIC, AT_ONCE).run()
    assert (result.merged, result.into, result.removed, result.left) == (4, 1, 4, 0)
    assert result.bytes_after < result.bytes_before
    assert files(archive) == [(0, 5), (0, 310), (310, 320)], "a partition's last file stays"
    assert everything(archive) == before
    assert archive.positions(TOPIC) == {0: 320, 3: 5}
    append(archive, 320, 330)
    assert Compaction(archive, TOPIC, AT_ONCE).run().into == 1
    assert archive.topic_id(TOPIC, 0) is None
    assert files(archive) == [(0, 5), (0, 320), (320, 330)]
    assert Compaction(archive, TOPIC, AT_ONCE).run() == Result()


def test_files_are_merged_up_to_the_target_and_large_ones_stay(tmp_path: Path) -> None:
    archive = filled(str(tmp_path), 10, 20, 5000, 5010, 5020, 5030, 5040, 5050)
    sizes = {info.size for info in archive.storage.files(str(tmp_path), True)}
    small, large = min(sizes), max(sizes)
    assert 3 * small < large
    Compaction(archive, TOPIC, Options(target_bytes=int(2.9 * small), settle_s=0)).run()
    assert files(archive) == [
        (0, 20),
        (20, 5000),
        (5000, 5020),
        (5020, 5040),
        (5040, 5050),
    ]
    assert offsets(archive) == list(range(5050))


def test_rows_with_large_contexts_are_merged_in_small_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.archive.compaction.GROUP_BYTES", 2_000)
    archive = filled(str(tmp_path), 100, 180, 300, 310)
    before = everything(archive)
    Compaction(archive, TOPIC, AT_ONCE).run()
    merged = archive.ranges(TOPIC)[0][0]
    assert (merged.first, merged.next) == (0, 300)
    assert pq.ParquetFile(merged.path).num_row_groups > 1
    assert everything(archive) == before


def test_replaced_files_stay_until_every_list_has_the_larger_one(url: str) -> None:
    archive = filled(url, 100, 180, 300)
    compaction = Compaction(archive, TOPIC)
    compaction.merge(0)
    compaction.remove_replaced(0)
    assert compaction.result.left == 2
    archive.recover(TOPIC, 0)
    assert files(archive) == [(0, 100), (0, 180), (100, 180), (180, 300)]
    assert offsets(archive) == list(range(300)), "replaced files are not read"
    assert archive.position(TOPIC, 0) == 300
    Compaction(archive, TOPIC, AT_ONCE).run()
    assert files(archive) == [(0, 180), (180, 300)]


def test_a_listing_made_while_a_writer_publishes_ends_no_compaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = filled(str(tmp_path), 10, 20, 30)
    compaction = Compaction(archive, TOPIC, AT_ONCE)
    with monkeypatch.context() as patch:
        show_late(archive, 10, 20, patch)
        compaction.merge(0)
    append(archive, 30, 40)
    append(archive, 40, 50)
    with monkeypatch.context() as patch:
        show_late(archive, 30, 40, patch)
        compaction.remove_replaced(0)
    assert files(archive) == [(0, 20), (20, 30), (30, 40), (40, 50)]


def test_a_reader_goes_on_in_the_file_that_replaces_the_one_it_reads(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.archive.archive.READ_ROWS", 40)  # several row groups a file
    archive = filled(url, 100, 200, 300, 400)
    reader = archive.read(TOPIC, {0: 380}, ["offset"], {0: 20})
    read = next(reader).column("offset").to_pylist()
    assert read == list(range(20, 40))
    Compaction(archive, TOPIC, AT_ONCE).run()
    assert files(archive) == [(0, 300), (300, 400)]
    for table in reader:
        read += table.column("offset").to_pylist()
    assert read == list(range(20, 380))


def test_readers_and_a_writer_work_while_files_are_merged(url: str) -> None:
    archive = filled(url, 10, 20, 30)
    ended, failures = threading.Event(), []

    def compact() -> None:
        try:
            while not ended.is_set():
                Compaction(Archive(url), TOPIC, Options(settle_s=0.1)).run()
        except Exception as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)

    thread = threading.Thread(target=compact)
    thread.start()
    try:
        for end in range(40, 200, 10):
            append(archive, archive.position(TOPIC, 0), end)
            assert offsets(Archive(url)) == list(range(end))
    finally:
        ended.set()
        thread.join()
    assert not failures
    Compaction(archive, TOPIC, AT_ONCE).run()
    assert len(files(archive)) == 2


def test_a_compaction_removes_its_own_file_when_another_one_merged_across_it(
    tmp_path: Path,
) -> None:
    archive = filled(str(tmp_path), 100, 200, 300, 400, 500)
    other, slow = (Compaction(archive, TOPIC, Options(2**30, 0)) for _ in range(2))
    merged = archive.ranges(TOPIC)[0]
    slow.on_step = lambda step: other._merge_files(merged[1:4]) if step == 1 else None
    with pytest.raises(ArchiveError, match="one compaction run at a time"):
        slow._merge_files(merged[0:2])
    assert offsets(archive) == list(range(500))
    assert (0, 200) not in files(archive)


COMPACTION = """
import os, signal, sys
sys.path.insert(0, {root!r})
from store.archive.archive import Archive
from store.archive.compaction import Compaction, Options
compaction = Compaction(Archive({url!r}), "interactions", Options(settle_s=0.0))
def on_step(step):
    if step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
compaction.on_step = on_step
compaction.run()
"""


@pytest.mark.process
@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_compaction_killed_after_any_step_loses_and_doubles_nothing(url: str, step: int) -> None:
    archive = filled(url, 100, 180, 300, 400)
    code = COMPACTION.format(root=str(Path(__file__).parents[3]), url=url, step=step)
    killed = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert offsets(archive) == list(range(400))
    archive.recover(TOPIC, 0)
    append(archive, archive.position(TOPIC, 0), 500)
    assert offsets(archive) == list(range(500))
    for info in archive.storage.files(archive.storage.root, recursive=True):
        if info.base_name.startswith("."):
            assert step == 1, "only an unfinished file is hidden"
            os.utime(info.path, (0, 0))  # its writer is dead for long
    Compaction(archive, TOPIC, AT_ONCE).run()
    assert files(archive) == [(0, 400), (400, 500)]
    assert offsets(archive) == list(range(500))


@pytest.mark.process
def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    archive = filled(str(tmp_path), 100, 180, 300)
    command = [sys.executable, "-m", "streams", "archive", "compact", "--settle", "0"]
    done = subprocess.run(
        command,
        env={**os.environ, "ARCHIVE_URL": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "merged 2 files of interactions into 1" in done.stdout
    assert "removed 2 replaced files" in done.stdout
    assert offsets(archive) == list(range(300))


def test_a_reader_opens_no_file_and_no_row_group_before_its_first_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not need is damaged here, and would raise ArchiveError if it were read."""
    monkeypatch.setattr("store.archive.archive.READ_ROWS", 1000)
    archive = filled(str(tmp_path), 100, 200, 5000)
    folder = tmp_path / TOPIC / "partition=0"
    oldest, older, newest = sorted(folder.iterdir())
    oldest.write_bytes(b"")
    older.write_bytes(b"")
    damaged = bytearray(newest.read_bytes())
    damaged[100:200] = bytes(100)  # in the first row group
    newest.write_bytes(damaged)
    assert offsets(archive, start={0: 4100}) == list(range(4100, 5000))
    with pytest.raises(ArchiveError, match=newest.name):
        offsets(archive, start={0: 300})
