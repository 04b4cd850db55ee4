"""Reads and writes arrays and JSON of model parts.

No format executes code; errors name the file.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from core.contract import problems
from core.errors import ModelCorrupt, ModelMissing
from core.process.background import pause

T = TypeVar("T")

_header_lock = threading.Lock()
"""Held while numpy reads a file's header, which it parses as Python source. Python 3.11 and 3.12
keep one depth counter for all threads that build syntax trees, and raise SystemError when two of
them do.
"""

SLICE_BYTES = 16_384
"""Bytes of JSON decoded in one call: about 0.2 ms."""
CHECK_FLOATS = 1 << 20
"""Numbers checked in one call: about 0.3 ms. A memory-mapped array is not copied as a whole."""
_NEXT_ENTRY = re.compile(rb",\n (?! )")
"""Separates two entries of the outermost list or map in the JSON of `write_json`: a JSON string has
no line break, and deeper levels have a larger indent. Other JSON has no match and is decoded as a
whole."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; keys keep their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def read_json(path: Path, kind: type[T]) -> T:
    """Decode the JSON at `path` as `kind`. Raises ModelMissing, ModelCorrupt."""
    try:
        return msgspec.json.decode(_read(path), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        text = problems.in_words(error, path.read_bytes(), "file")
        raise ModelCorrupt(f"{path}: {text}; publish or copy the bundle again") from None


def read_entries(path: Path, kind: type[T]) -> T:
    """The same as `read_json`, in slices, for a list or a map with thousands of entries.

    `kind`: list[...] or dict[str, ...]. One call would block all other threads of a serving process
    until the whole file is decoded.
    """
    data = _read(path)
    entries: Any = kind()
    opening, closing, add = (
        (b"[", b"]", entries.extend) if isinstance(entries, list) else (b"{", b"}", entries.update)
    )
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(kind).decode
    begin = 0
    try:
        while data.startswith(opening) and (end := _NEXT_ENTRY.search(data, begin + SLICE_BYTES)):
            add(decode(opening + data[begin + 1 : end.start()] + closing))
            begin = end.start()
            pause()
        add(decode(opening + data[begin + 1 :] if begin else data))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return read_json(path, kind)  # its error has the position within the whole file
    result: T = entries
    return result


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=False)


def read_floats(path: Path, ndim: int, mmap: bool = False) -> NDArray[np.float32]:
    """The finite, C-contiguous float32 array of `ndim` dimensions at `path`.

    `mmap`: map the file instead of reading it. Raises ModelMissing, ModelCorrupt.
    """
    try:
        with _header_lock:
            array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise ModelCorrupt(f"{path} is not a .npy array: {error}") from None
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.float32
        or array.ndim != ndim
        or not array.flags.c_contiguous
    ):
        raise ModelCorrupt(f"{path} must hold a C-contiguous float32 array of {ndim} dimension(s)")
    _check_finite(path, array)
    return array


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as one uncompressed .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    """Finite float32 arrays of the .npz at `path` by name. Raises ModelMissing, ModelCorrupt."""
    try:
        with _header_lock, np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.ascontiguousarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist") from None
    except Exception as error:  # noqa: BLE001 - zipfile and numpy raise errors of many types for a damaged file
        raise ModelCorrupt(f"{path} is not a .npz of arrays: {error}") from None
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ModelCorrupt(f"{path}: {name} must hold float32 numbers")
        _check_finite(path, array, name)
    return arrays


def write_csr(path: Path, matrix: sp.csr_matrix) -> None:
    """Write a CSR matrix as scipy's .npz; uncompressed, because it loads several times faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sp.save_npz(path, matrix, compressed=False)


def read_csr(path: Path) -> sp.csr_matrix:
    """The finite f32 CSR matrix at `path`. Raises ModelMissing, ModelCorrupt."""
    try:
        with _header_lock:
            matrix = sp.load_npz(path)
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist") from None
    except Exception as error:  # noqa: BLE001 - zipfile, numpy and scipy raise errors of many types for a damaged file
        raise ModelCorrupt(f"{path} is not a scipy .npz matrix: {error}") from None
    matrix = sp.csr_matrix(matrix, dtype=np.float32)
    _check_finite(path, matrix.data)
    return matrix


def check_finite(path: Path) -> None:
    """Check every float array of the .npy or .npz at `path`; other files are skipped.

    Raises ModelMissing; ModelCorrupt also for NaN or infinity.
    """
    if path.suffix not in (".npy", ".npz"):
        return
    try:
        with _header_lock:
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            _check_finite(path, loaded)
        else:
            with loaded:
                for name in loaded.files:
                    with _header_lock:
                        array = loaded[name]
                    _check_finite(path, array, name)
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist") from None
    except ModelCorrupt:
        raise
    except Exception as error:  # noqa: BLE001 - zipfile and numpy raise errors of many types for a damaged file
        raise ModelCorrupt(f"{path} is not a file of arrays: {error}") from None


def _check_finite(path: Path, array: NDArray[Any], name: str = "") -> None:
    if array.dtype.kind != "f":
        return
    flat = array.reshape(-1)
    for start in range(0, len(flat), CHECK_FLOATS):
        finite = np.isfinite(flat[start : start + CHECK_FLOATS])
        if not finite.all():
            row = (
                np.unravel_index(start + int(finite.argmin()), array.shape)[0] if array.ndim else 0
            )
            raise ModelCorrupt(
                f"{path}{name and f': {name}'} holds NaN or infinity in row {row}; retrain, "
                f"or roll back to another version"
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist") from None
    except OSError as error:
        raise ModelCorrupt(f"{path}: {error.strerror}") from None
