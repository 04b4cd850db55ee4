"""A table that cannot be read, or not as a whole, is named with what to do."""

from __future__ import annotations

import gzip
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from core.errors import ConfigurationError, SourceFailed
from store.tables.formats.columns import ColumnsPart
from store.tables.options import Options
from store.tables.reader import open_path
from store.tables.rows import Reject
from store.tables.source import Part
from tests.tables import binary
from training.data import items

HEADER = "user_id,item_id,event_type,timestamp\n"


def rejects(path: Path, options: Options | None = None) -> list[Reject]:
    reader = open_path(path, options or Options(), time.time())
    return [reject for batch in reader.batches() for reject in batch.rejects]


def test_the_row_in_which_a_quote_opens_is_named_among_thousands(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [f"u{number},a,view,1700000000" for number in range(5_000)]
    rows[2_998] = 'u,"a,view,1700000000'
    path.write_text(HEADER + "\n".join(rows))
    reader = open_path(path, Options(), time.time())
    batches = list(reader.batches())
    assert [reject.number for batch in batches for reject in batch.rejects] == [3_000]
    assert sum(len(batch.numbers) for batch in batches) == 4_999
    (reject,) = (reject for batch in batches for reject in batch.rejects)
    assert reject.code == "stray_quote"
    assert "opens in this row" in reject.reason


def test_a_large_file_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    peaks = []
    for rows in (8_000, 40_000):
        path = tmp_path / f"{rows}.csv.gz"
        row = "user{0},item{0},view,1700000000\n"
        with gzip.open(path, "wt", compresslevel=1) as file:
            file.write(HEADER)
            file.writelines(row.format(number) for number in range(rows))
        tracemalloc.start()
        reader = open_path(path, Options(), time.time())
        assert sum(batch.read for batch in reader.batches()) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_folder_is_read_as_one_table_and_a_reject_names_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "part-1.csv").write_text(HEADER + "u1,a,view,1700000000\n")
    (folder / "part-2.csv").write_text(HEADER + "u2,a,view,1700000000\nu3,a,view\n,a,view,1\n")
    (folder / "part-3.csv").write_text(HEADER + 'u4,"a,view,1700000000\n')
    reader = open_path(folder, Options(), time.time())
    batches = list(reader.batches())
    numbers = [number for batch in batches for number in batch.numbers]
    assert numbers == [2, 4, 5]
    bad = [reject for batch in batches for reject in batch.rejects]
    assert [reject.number for reject in bad] == [6, 8]
    assert "part-3.csv, row 2: a quote" in bad[1].reason


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "u1,a,view,1700000000\n" * 50_000).encode())[:500])
    with pytest.raises(SourceFailed, match=r"events\.csv\.gz cannot be read: "):
        rejects(path)
    (tmp_path / "cut.json").write_text('[{"user_id": "1", "item_id": "a", "event_type": "view"}, {')
    with pytest.raises(SourceFailed, match=r"cut\.json, element 2 of the array"):
        rejects(tmp_path / "cut.json")


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as .xlsx or as CSV"),
        ("shop.db", b"SQLite format 3\x00", "import --database sqlite:///.*shop.db --table NAME"),
        ("plain.csv", b"7,a,1700000000\n8,b,1700000000\n", "name them with --header"),
        ("wide.csv", "user_id,item_id\n".encode("utf-16-le"), "give --encoding, such as utf-16-le"),
    ],
)
def test_what_it_cannot_be_read_as_says_what_to_do(
    name: str, content: bytes, hint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=hint):
        rejects(tmp_path / name)


def test_a_zip_of_several_files_names_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.writestr("a.csv", HEADER)
        archive.writestr("b.csv", HEADER)
    with pytest.raises(ConfigurationError, match=r"zip of 2 files \(a.csv, b.csv\): unpack it"):
        rejects(tmp_path / "both.zip")


def test_an_id_in_another_encoding_is_rejected_with_the_option_that_reads_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(b"item_id,item_type,title\n1,book,caf\xe9 \xe9\n2,book,caf\xc3\xa9\n")
    (reject,) = rejects(path, Options(kind="items"))
    assert (reject.number, reject.code) == (2, "bad_encoding")
    assert "give --encoding, such as cp1252" in reject.reason


def test_columns_of_items_without_a_field_are_attributes_of_their_type(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,year,zip,open\n1,A,1999,01234,true\n2,B,,V0R2M,false\n")
    first, second = items.read(path, "book")
    assert (first.item_type, first.title) == ("book", "A")
    assert first.attributes == {"year": 1999, "zip": "01234", "open": True}
    assert second.attributes == {"zip": "V0R2M", "open": False}


def test_files_of_an_object_store_are_read_as_local_ones(tmp_path: Path) -> None:
    """A file system of Arrow that is not the local one takes the way of s3://."""
    remote = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    for name in ("gzip.csv", "zstd.csv", "zip.csv", "xz.csv"):
        binary.MADE[name](tmp_path / name)
        part = Part(remote, name, name, (tmp_path / name).stat().st_size)
        assert part.head(1_000) == binary.CSV
        with part.open_seekable() as file:
            file.seek(7)
            assert file.read() == binary.CSV[7:]
        local = Part(pafs.LocalFileSystem(), str(tmp_path / name), name, part.size)
        assert part.fingerprint() == local.fingerprint()
    binary.MADE["listens.parquet"](tmp_path / "x")
    table = ColumnsPart(Part(remote, "x", "x", 1), Options(), "parquet")
    (batch,) = table.batches(["uid"], print)
    assert batch.columns == [[100, 100]]


def test_a_tar_archive_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "yelp.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("review.json"))
    with pytest.raises(ConfigurationError, match=r"yelp\.tar\.gz is a tar archive: unpack it"):
        open_path(path, Options(), 2e9)
