"""Reads and writes arrays and JSON of model parts.

No format executes code; errors name the file.
"""

from __future__ import annotations

import re
import struct
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

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
ALIGNMENT = 64
"""Bytes by which the arrays in an .npz are aligned, so that they can be mapped: a cache line, as
numpy aligns the array of an .npy."""
_ALIGNMENT_FIELD = 0xD935
"""Id of the extra field that pads the header of a zip member, as Android's zipalign writes it."""
_NEXT_ENTRY = re.compile(rb",\n (?! )")
"""Separates two entries of the outermost list or map in the JSON of `write_json`: a JSON string has
no line break, and deeper levels have a larger indent. Other JSON has no match and is decoded as a
whole."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; keys keep their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises ModelMissing, ModelCorrupt."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist") from None
    except OSError as error:
        raise ModelCorrupt(f"{path}: {error.strerror}") from None


def read_json(path: Path, kind: type[T]) -> T:
    """Decode the JSON at `path` as `kind`. Raises ModelMissing, ModelCorrupt."""
    try:
        return msgspec.json.decode(read_bytes(path), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        text = problems.in_words(error, path.read_bytes(), "file")
        raise ModelCorrupt(f"{path}: {text}; publish or copy the bundle again") from None


def read_entries(path: Path, kind: type[T], replace: Callable[[Any], Any] | None = None) -> T:
    """The same as `read_json`, in slices, for a list or a map with thousands of entries.

    `kind`: list[...] or dict[str, ...]; `replace`: called with each entry of a list, returns what
    takes its place. One call would block all other threads of a serving process until the whole
    file is decoded.
    """
    data = read_bytes(path)
    entries: Any = kind()
    opening, closing, add = (
        (b"[", b"]", entries.extend) if isinstance(entries, list) else (b"{", b"}", entries.update)
    )
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(kind).decode
    extend = add if replace is None else lambda entries: add(map(replace, entries))
    begin = 0
    try:
        while data.startswith(opening) and (end := _NEXT_ENTRY.search(data, begin + SLICE_BYTES)):
            extend(decode(opening + data[begin + 1 : end.start()] + closing))
            begin = end.start()
            pause()
        extend(decode(opening + data[begin + 1 :] if begin else data))
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

    `mmap`: map the file instead of reading it, copy-on-write: all processes that map it share its
    memory, and none changes it. The file must not be written any more; it may be removed.
    Raises ModelMissing, ModelCorrupt.
    """
    try:
        with _header_lock:
            array = np.load(path, mmap_mode="c" if mmap else None, allow_pickle=False)
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
    return np.asarray(array)  # an operation on a numpy.memmap costs more


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as one uncompressed .npz; each is aligned, so that it can be mapped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # the member's header: 30 bytes, its name, 20 bytes of ZIP64, and the field that pads it
            padding = -(file.tell() + 30 + len(member.filename.encode()) + 20 + 6) % ALIGNMENT
            member.extra = struct.pack("<HHH", _ALIGNMENT_FIELD, 2 + padding, ALIGNMENT)
            member.extra += bytes(padding)
            with archive.open(member, "w", force_zip64=True) as content:
                np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)


def read_arrays(path: Path, mmap: bool = False) -> dict[str, NDArray[np.float32]]:
    """Finite float32 arrays of the .npz at `path` by name; `mmap`: as for `read_floats`.

    Raises ModelMissing, ModelCorrupt.
    """
    arrays = _read_npz(path, mmap, "a .npz of arrays")
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ModelCorrupt(f"{path}: {name} must hold float32 numbers")
        _check_finite(path, array, name)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def write_csr(path: Path, matrix: sp.csr_matrix) -> None:
    """Write a CSR matrix as scipy's .npz; uncompressed, because it loads several times faster."""
    write_arrays(
        path,
        {
            "indices": matrix.indices,
            "indptr": matrix.indptr,
            "format": np.array(b"csr"),
            "shape": np.array(matrix.shape),
            "data": matrix.data,
        },
    )


def read_csr(path: Path, mmap: bool = False) -> sp.csr_matrix:
    """The finite f32 CSR matrix at `path`; `mmap`: as for `read_floats`.

    Raises ModelMissing, ModelCorrupt.
    """
    arrays = _read_npz(path, mmap, "a scipy .npz matrix")
    try:
        if bytes(arrays["format"].item()) != b"csr":
            raise ValueError(f"its format is {arrays['format'].item()!r}, not csr")
        parts = arrays["data"], arrays["indices"], arrays["indptr"]
        matrix = sp.csr_matrix(parts, shape=tuple(arrays["shape"].tolist()), dtype=np.float32)
        matrix.check_format(full_check=True)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelCorrupt(f"{path} is not a scipy .npz matrix: {error}") from None
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


def _read_npz(path: Path, mmap: bool, kind: str) -> dict[str, NDArray[Any]]:
    """The arrays of the .npz at `path` by name.

    `mmap`: map them, except one that is compressed or not aligned, as older releases wrote it.
    `kind`: for the error. Raises ModelMissing, ModelCorrupt.
    """
    try:
        with (
            _header_lock,
            path.open("rb") as file,  # numpy leaves it open if it is no zip file
            np.load(file, allow_pickle=False) as archive,
        ):
            if not mmap:
                return {name: archive[name] for name in archive.files}
            arrays = {}
            for member in archive.zip.infolist():
                name = member.filename.removesuffix(".npy")
                array = _mapped(file, member)
                arrays[name] = archive[name] if array is None else array
            return arrays
    except FileNotFoundError:
        raise ModelMissing(f"{path} does not exist") from None
    except Exception as error:  # noqa: BLE001 - zipfile and numpy raise errors of many types for a damaged file
        raise ModelCorrupt(f"{path} is not {kind}: {error}") from None


def _mapped(file: IO[bytes], member: zipfile.ZipInfo) -> NDArray[Any] | None:
    """The array of a member of the .npz `file`, mapped; None if it must be copied."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    file.seek(member.header_offset + 26)  # in the member's header: the lengths of its last fields
    name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    file.seek(name_bytes + extra_bytes, 1)
    if np.lib.format.read_magic(file) != (1, 0):
        return None
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    begin = file.tell()
    if fortran_order or dtype.hasobject or begin % ALIGNMENT or 0 in shape:
        return None
    # a mapping of its own: scipy copies an array that is a small part of another
    return np.asarray(np.memmap(file, dtype, "c", begin, shape))


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
