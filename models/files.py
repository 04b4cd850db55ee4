"""Arrays and JSON on disk. Nothing that executes code when loaded; every failure names the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from core.background import rest
from core.errors import ModelCorrupt, ModelMissing

T = TypeVar("T")

SLICE = 16_384
"""Bytes of JSON that are decoded at once: some 0.2 ms."""
FLOATS_AT_ONCE = 1 << 20
"""Numbers that are checked at once: some 0.3 ms, and no copy of a large array that is left on disk."""
_NEXT_ENTRY = re.compile(rb",\n (?! )")
"""Between two entries of the outermost list or map that `write_json` wrote: no text in JSON holds a line break, and what lies deeper is
indented further. JSON of another form has no such place and is decoded as a whole."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in their order, a newline at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def read_json(path: Path, kind: type[T]) -> T:
    """The JSON at `path`, checked against `kind`. Raises ModelMissing, ModelCorrupt."""
    try:
        return msgspec.json.decode(_read(path), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ModelCorrupt(f"{path}: {error}; publish or copy the bundle again") from None


def read_entries(path: Path, kind: type[T]) -> T:
    """The same for a list or a map of thousands of entries (`kind`: list[...] or dict[str, ...]), a slice at a time.

    Decoding it in one call would keep every other thread of a serving process waiting for as long as it takes.
    """
    data = _read(path)
    entries: Any = kind()
    opening, closing, add = (b"[", b"]", entries.extend) if isinstance(entries, list) else (b"{", b"}", entries.update)
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(kind).decode
    begin = 0
    try:
        while data.startswith(opening) and (end := _NEXT_ENTRY.search(data, begin + SLICE)):
            add(decode(opening + data[begin + 1 : end.start()] + closing))
            begin = end.start()
            rest()
        add(decode(opening + data[begin + 1 :] if begin else data))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return read_json(path, kind)  # as a whole: a slice does not know where in the file it is
    found: T = entries
    return found


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=False)


def read_floats(path: Path, ndim: int, mmap: bool = False) -> NDArray[np.float32]:
    """The float32, C-contiguous, finite array of `ndim` dimensions at `path` (`mmap`: left on disk).

    Raises ModelMissing, ModelCorrupt.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise ModelMissing(f"{path} is not there") from None
    except (OSError, ValueError, EOFError) as error:
        raise ModelCorrupt(f"{path} is no .npy array: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != ndim or not array.flags.c_contiguous:
        raise ModelCorrupt(f"{path} must hold a C-contiguous float32 array of {ndim} dimension(s)")
    _check_finite(path, array)
    return array


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as one uncompressed .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    """The named float32, C-contiguous, finite arrays of the .npz at `path`. Raises ModelMissing, ModelCorrupt."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: np.ascontiguousarray(held[name]) for name in held.files}
    except FileNotFoundError:
        raise ModelMissing(f"{path} is not there") from None
    except Exception as error:  # noqa: BLE001 - zipfile and numpy each raise their own kinds on a damaged file
        raise ModelCorrupt(f"{path} is no .npz of arrays: {error}") from None
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ModelCorrupt(f"{path}: {name} must hold float32 numbers")
        _check_finite(path, array, name)
    return arrays


def write_csr(path: Path, matrix: sp.csr_matrix) -> None:
    """Write a CSR matrix in scipy's .npz form, uncompressed: it loads several times faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sp.save_npz(path, matrix, compressed=False)


def read_csr(path: Path) -> sp.csr_matrix:
    """The CSR f32 matrix at `path`. Raises ModelMissing, ModelCorrupt."""
    try:
        matrix = sp.load_npz(path)
    except FileNotFoundError:
        raise ModelMissing(f"{path} is not there") from None
    except Exception as error:  # noqa: BLE001 - zipfile, numpy and scipy each raise their own kinds on a damaged file
        raise ModelCorrupt(f"{path} is no scipy .npz matrix: {error}") from None
    found = sp.csr_matrix(matrix, dtype=np.float32)
    _check_finite(path, found.data)
    return found


def check_finite(path: Path) -> None:
    """Check every float array of the .npy or .npz at `path`; a file of another kind passes. Raises ModelMissing, ModelCorrupt."""
    if path.suffix not in (".npy", ".npz"):
        return
    try:
        held = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(held, np.ndarray):
            _check_finite(path, held)
        else:
            with held:
                for name in held.files:
                    _check_finite(path, held[name], name)
    except FileNotFoundError:
        raise ModelMissing(f"{path} is not there") from None
    except ModelCorrupt:
        raise
    except Exception as error:  # noqa: BLE001 - zipfile and numpy each raise their own kinds on a damaged file
        raise ModelCorrupt(f"{path} holds no arrays: {error}") from None


def _check_finite(path: Path, array: NDArray[Any], name: str = "") -> None:
    if array.dtype.kind != "f":
        return
    flat = array.reshape(-1)
    for start in range(0, len(flat), FLOATS_AT_ONCE):
        finite = np.isfinite(flat[start : start + FLOATS_AT_ONCE])
        if not finite.all():
            row = np.unravel_index(start + int(finite.argmin()), array.shape)[0] if array.ndim else 0
            raise ModelCorrupt(f"{path}{name and f': {name}'} holds NaN or infinity in row {row}; retrain, or roll back to another version")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelMissing(f"{path} is not there") from None
    except OSError as error:
        raise ModelCorrupt(f"{path}: {error.strerror}") from None
