"""A full disk: the error is one line with correct numbers, and earlier files are unchanged.

The tests mount a file system of one megabyte.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import structlog

from core.errors import ArchiveError, DiskFull
from models import files, refused
from models.als import ALSModel
from models.id_map import IdMap
from models.registry import Registry
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from tests.models.world import write

SIZE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs of SIZE bytes."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    path = tmp_path / "disk"
    path.mkdir()
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        pytest.skip(f"mounting a file system is not permitted: {result.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def _numbers(text: str) -> list[int]:
    return [
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:bytes|are free)", text)
    ]


def _too_large(folder: Path, kind: str) -> None:
    write(folder)
    factors = np.ones((20_000, 32), np.float32)
    if kind == "npy":
        ids = IdMap([str(number) for number in range(len(factors))])
        ALSModel(ids, factors, regularization=0.1, alpha=1).save(folder / "als")
    elif kind == "npz":
        files.write_arrays(folder / "two_tower" / "user_tower.npz", {"weights": factors})
    else:
        (folder / "dataset").mkdir()
        (folder / "dataset" / "rows").write_bytes(b"x" * 2 * SIZE)


@pytest.mark.parametrize("kind", ["npy", "npz", "bytes"])
def test_a_bundle_that_does_not_fit_leaves_the_live_one_in_place(
    small_disk: Path, kind: str
) -> None:
    models = Registry(small_disk / "models")
    live = models.publish(write)
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(DiskFull) as raised:
        models.publish(lambda folder: _too_large(folder, kind))
    message = str(raised.value)
    assert "\n" not in message
    assert str(models.path) in message
    stated_free, live_bytes = _numbers(message)
    assert stated_free == free
    assert live_bytes == sum(
        path.stat().st_size for path in (models.path / live).rglob("*") if path.is_file()
    )
    assert (models.current(), models.versions()) == (live, [live])
    assert models.load(strict=True).version == live
    assert [path.name for path in models.path.iterdir() if path.name.startswith(".")] == []


def test_a_pointer_that_does_not_fit_leaves_the_old_one_in_place(small_disk: Path) -> None:
    models = Registry(small_disk / "models")
    old, new = models.publish(write), models.publish(write)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    with pytest.raises(DiskFull, match="no space for the pointer"):
        models.promote(old)
    assert models.current() == new
    filler.unlink()
    models.promote(old)
    assert models.current() == old


def test_an_archive_file_that_does_not_fit_does_not_appear(small_disk: Path) -> None:
    archive = Archive(str(small_disk / "archive"))
    count = 30_000

    def column(field: pa.Field) -> pa.Array:
        if field.name == "offset":
            return pa.array(range(count), field.type)
        if pa.types.is_string(field.type):
            return pa.array([os.urandom(24).hex() for _ in range(count)], field.type)
        return (
            pa.nulls(count, field.type)
            if field.nullable
            else pa.array([0] * count, pa.int64()).cast(field.type)
        )

    rows = pa.Table.from_arrays([column(field) for field in SCHEMA], schema=SCHEMA)
    with pytest.raises(ArchiveError, match="no space for") as raised:
        archive.append("interactions", 0, 0, count, rows)
    needed, free = _numbers(str(raised.value))
    assert needed > free
    assert archive.position("interactions", 0) == 0
    archive.append("interactions", 0, 0, 10, rows.slice(0, 10))
    assert archive.position("interactions", 0) == 10


def test_a_refused_evaluation_that_does_not_fit_leaves_the_former_one_and_no_files(
    small_disk: Path,
) -> None:
    registry = Registry(small_disk)
    page = "report.html"
    refused.save(registry, {"seeds": {"training": 1}}, lambda folder: _fill(folder / page, 10))
    with structlog.testing.capture_logs() as logs:
        refused.save(
            registry, {"seeds": {"training": 2}}, lambda folder: _fill(folder / page, 2 * SIZE)
        )
    assert [line["event"] for line in logs] == ["refused_evaluation_not_written"]
    assert refused.read(registry).seeds == {"training": 1}
    assert [path.name for path in small_disk.iterdir()] == [refused.NAME]


def _fill(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))
