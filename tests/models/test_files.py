"""`read_entries` decodes large JSON in slices, with the result of decoding it as a whole.

Arrays are mapped if they are aligned, and have the same numbers as a copy.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy.sparse as sp

from core.errors import ModelCorrupt
from core.types import Item
from models import files
from tests.models.world import is_mapped

ITEMS = [
    Item(
        item_id=f"item-{number}",
        item_type="startup",
        title=',\n "' + "é\u2028" * (number % 7),
        tags=["a,\n b", "},\n {", "]"][: number % 4],
        attributes={"deep": ["x", ",\n "]} if number % 3 else {},
    )
    for number in range(1000)
]
ROWS = {f',\n "{number}": 1' * (number % 5 + 1): number for number in range(3000)}


@pytest.mark.parametrize(("kind", "value"), [(list[Item], ITEMS), (dict[str, int], ROWS)])
def test_entries_load_unchanged_in_small_slices(
    kind: Any, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sizes = tmp_path / "entries.json", list[int]()
    files.write_json(path, value)
    decoder = msgspec.json.Decoder(kind)

    class Counting:
        """A decoder that records the bytes of each call."""

        def __init__(self, _: object) -> None:
            pass

        def decode(self, data: bytes) -> Any:
            sizes.append(len(data))
            return decoder.decode(data)

    monkeypatch.setattr(msgspec.json, "Decoder", Counting)
    assert files.read_entries(path, kind) == value
    assert len(sizes) > 3
    assert max(sizes) < files.SLICE_BYTES + 1000


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4])
@pytest.mark.parametrize(
    ("kind", "value"),
    [(list[Item], ITEMS), (dict[str, int], ROWS), (list[Item], []), (dict[str, int], {})],
)
def test_json_with_any_indent_is_read(
    kind: Any, value: object, indent: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "entries.json"
    path.write_text(json.dumps(msgspec.to_builtins(value), indent=indent))
    assert files.read_entries(path, kind) == value
    path.write_text("\n " + json.dumps(msgspec.to_builtins(value), indent=indent) + "\n\n")
    assert files.read_entries(path, kind) == value


def test_the_error_names_the_invalid_entry(tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    files.write_json(path, {**ROWS, "bad": "row"})
    with pytest.raises(
        ModelCorrupt, match=r"entries\.json: .* must be a whole number, this file has the text"
    ):
        files.read_entries(path, dict[str, int])
    files.write_json(path, [*ITEMS[:700], {"item_id": 7}, *ITEMS[700:]])
    with pytest.raises(ModelCorrupt, match=r"entries\.json: item_id of entry 701 must"):
        files.read_entries(path, list[Item])


@pytest.mark.parametrize("cut", [1, 2, 20_000, 50_000])
def test_a_truncated_file_is_corrupt(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    files.write_json(path, ITEMS)
    path.write_bytes(path.read_bytes().rstrip()[:-cut])
    with pytest.raises(ModelCorrupt, match=r"entries\.json"):
        files.read_entries(path, list[Item])


class _Cycle:
    """Collected only by the cycle collector, and then runs Python code, so that threads switch."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(200):
            pass


@pytest.fixture
def _frequent_thread_switches() -> Iterator[None]:
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-5)
    gc.set_threshold(5)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("_frequent_thread_switches")
def test_threads_read_arrays_at_the_same_time(tmp_path: Path) -> None:
    matrix = sp.random(50, 50, 0.1, format="csr", dtype=np.float32)
    files.write_csr(tmp_path / "vectors.npz", matrix)
    errors: list[str] = []

    def read() -> None:
        for _ in range(300):
            [_Cycle() for _ in range(5)]
            try:
                files.read_csr(tmp_path / "vectors.npz")
            except ModelCorrupt as error:
                errors.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


MATRIX = sp.random(50, 30, 0.1, format="csr", dtype=np.float32, random_state=1)
ARRAYS = {
    "one": np.arange(7, dtype=np.float32),
    "a_longer_name": np.ones((3, 5), dtype=np.float32),
    "none": np.zeros((0, 4), dtype=np.float32),
}


def test_a_mapped_file_has_the_same_numbers_and_may_be_removed(tmp_path: Path) -> None:
    files.write_csr(tmp_path / "vectors.npz", MATRIX)
    files.write_arrays(tmp_path / "arrays.npz", ARRAYS)
    files.write_array(tmp_path / "one.npy", ARRAYS["one"])
    matrix = files.read_csr(tmp_path / "vectors.npz", mmap=True)
    arrays = files.read_arrays(tmp_path / "arrays.npz", mmap=True)
    one = files.read_floats(tmp_path / "one.npy", 1, mmap=True)
    for path in list(tmp_path.iterdir()):
        path.unlink()
    assert all(map(is_mapped, (matrix.data, matrix.indices, matrix.indptr, one)))
    assert {name: is_mapped(array) for name, array in arrays.items()} == {
        "one": True,
        "a_longer_name": True,
        "none": False,
    }
    assert (matrix != MATRIX).nnz == 0
    np.testing.assert_equal(arrays, ARRAYS)
    np.testing.assert_equal(one, ARRAYS["one"])


def test_a_write_to_a_mapped_array_changes_no_file(tmp_path: Path) -> None:
    files.write_array(tmp_path / "one.npy", ARRAYS["one"])
    files.read_floats(tmp_path / "one.npy", 1, mmap=True)[:] = 1
    np.testing.assert_equal(files.read_floats(tmp_path / "one.npy", 1), ARRAYS["one"])


@pytest.mark.parametrize("mmap", [False, True])
def test_files_of_numpy_and_scipy_and_of_older_releases_are_read(
    mmap: bool, tmp_path: Path
) -> None:
    sp.save_npz(tmp_path / "packed.npz", MATRIX, compressed=True)
    sp.save_npz(tmp_path / "plain.npz", MATRIX, compressed=False)
    np.savez(tmp_path / "arrays.npz", **ARRAYS)
    for name in ("packed", "plain"):
        assert (files.read_csr(tmp_path / f"{name}.npz", mmap) != MATRIX).nnz == 0
    np.testing.assert_equal(files.read_arrays(tmp_path / "arrays.npz", mmap), ARRAYS)


def test_numpy_and_scipy_read_what_is_written(tmp_path: Path) -> None:
    files.write_csr(tmp_path / "vectors.npz", MATRIX)
    files.write_arrays(tmp_path / "arrays.npz", ARRAYS)
    assert (sp.load_npz(tmp_path / "vectors.npz") != MATRIX).nnz == 0
    with np.load(tmp_path / "arrays.npz") as archive:
        np.testing.assert_equal(dict(archive), ARRAYS)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_cut_or_foreign_npz_is_corrupt(mmap: bool, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    files.write_csr(path, MATRIX)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match=r"vectors\.npz is not a scipy"):
        files.read_csr(path, mmap)
    indptr = np.full(51, 10**6, dtype=np.int32)
    files.write_csr(path, MATRIX)
    with np.load(path) as archive:
        files.write_arrays(path, {**archive, "indptr": indptr})
    with pytest.raises(ModelCorrupt, match=r"vectors\.npz is not a scipy"):
        files.read_csr(path, mmap)
