"""Example files that are not text, made from values: tests keep what they hold readable."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CSV = b"user_id,item_id,event_type,timestamp\n007,a,view,1700000000\n"


def types_of_parquet(path: Path) -> None:
    """Times in ns, missing values of two kinds, binary ids, and integers that became floats."""
    columns = {
        "user_id": pa.array([17850.0, float("nan"), None, 13047.0, 2.0**60]),
        "item_id": pa.array([b"caf\xc3\xa9", b"x", b"x", b"\xff\xfe", b"x"]),
        "event_type": pa.array(["view"] * 5).dictionary_encode(),
        "timestamp": pa.array([1_767_323_045_678_901_234] * 5, pa.timestamp("ns")),
        "value": pa.array([float("nan"), 1.0, 1.0, 1.0, 1.0]),
    }
    pq.write_table(pa.table(columns), path)


def units_of_parquet(path: Path) -> None:
    """A folder with partitions; each file has times of another unit."""
    for unit in ("s", "ms", "us", "ns"):
        folder = path / f"event_type=view/unit={unit}"
        folder.mkdir(parents=True)
        columns = {
            "user_id": [unit],
            "item_id": ["a"],
            "timestamp": pa.array([AT], pa.timestamp("us", "UTC")).cast(
                pa.timestamp(unit, "UTC"), safe=False
            ),
        }
        pq.write_table(pa.table(columns), folder / "part-0.parquet")
    (path / "_SUCCESS").touch()


def days_of_parquet(path: Path) -> None:
    """A column of days."""
    columns = {"user_id": ["u"], "item_id": ["a"], "event_type": ["view"]}
    pq.write_table(pa.table({**columns, "timestamp": [date(2026, 1, 2)]}), path)


def yambda_listens(path: Path) -> None:
    columns = {
        "uid": pa.array([100, 100], pa.uint32()),
        "timestamp": pa.array([20_240_115, 39_420], pa.uint32()),
        "item_id": pa.array([8326270, 1441281], pa.uint32()),
        "is_organic": pa.array([0, 1], pa.uint8()),
        "played_ratio_pct": pa.array([100, 42], pa.uint16()),
        "track_length_seconds": pa.array([170, 105], pa.uint32()),
    }
    pq.write_table(pa.table(columns), path)


def feather(path: Path) -> None:
    table = pa.table({"user_id": [1], "item_id": ["a"], "event_type": ["view"], "timestamp": [AT]})
    pyarrow.feather.write_feather(table, path)


def arrow_stream(path: Path) -> None:
    table = pa.table({"user_id": [1], "item_id": ["a"], "event_type": ["view"], "timestamp": [AT]})
    with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def excel(path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append([])
    sheet.append(["user_id", "item_id", "event_type", "timestamp"])
    sheet.append([17850, "a", "view", AT.replace(tzinfo=None, microsecond=0)])
    sheet.append([None, "a", "view", AT.replace(tzinfo=None)])
    book.save(path)


def compressed(compress: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A writer of CSV that is compressed, whatever its name says."""

    def write(path: Path) -> None:
        path.write_bytes(compress(CSV))

    return write


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._x.csv", b"")
        archive.writestr("x.csv", CSV)


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def gzipped_parquet(path: Path) -> None:
    yambda_listens(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def long_cells(path: Path) -> None:
    """A cell over the limit, and a line of several megabytes."""
    rows = ["user_id,item_id,event_type,timestamp,note"]
    rows += ["u1,a,view,1700000000,ok", f"u2,b,view,1700000001,{'x' * 140_000}"]
    rows += [f"u3,c,view,1700000002,{'y' * 3_000_000}", "u4,d,view,1700000003,ok"]
    path.write_text("\n".join(rows) + "\n")


MADE: dict[str, Callable[[Path], None]] = {
    "types.parquet": types_of_parquet,
    "units": units_of_parquet,
    "days.parquet": days_of_parquet,
    "listens.parquet": yambda_listens,
    "listens.parquet.gz": gzipped_parquet,
    "events.feather": feather,
    "events.arrows": arrow_stream,
    "events.xlsx": excel,
    "gzip.csv": compressed(gzip.compress),
    "bzip2.csv": compressed(bz2.compress),
    "xz.csv": compressed(lzma.compress),
    "zstd.csv": compressed(zstd),
    "zip.csv": zipped,
    "long-cells.csv": long_cells,
}
"""File name -> what writes it."""
