"""Arrays with one value an event, in memory or in a file that is mapped, read in pieces.

A mapped array is used like any other. `pieces` reads one without keeping it in memory.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PIECE = 1_000_000
"""Values in a piece: 8 MB of times."""


class Times(NamedTuple):
    """How many events have a time; the first and the last time, in seconds since 1970."""

    timed: int
    first: float
    last: float


class ColumnWriter:
    """Gathers the parts of one array, in memory or in a temporary file that nobody else sees."""

    def __init__(self, in_file: bool) -> None:
        self._file = tempfile.TemporaryFile() if in_file else None  # noqa: SIM115 - until `array`
        self._parts: list[Array] = []
        self._dtype = np.dtype(np.float64)

    def append(self, part: Array) -> None:
        """Add values at the end. Raises OSError."""
        self._dtype = part.dtype
        if self._file is None:
            self._parts.append(part)
        else:
            part.tofile(self._file)

    def array(self) -> Array:
        """All values; read-only where they are mapped. Call once, after the first `append`."""
        if self._file is None:
            return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        with self._file as file:
            file.flush()
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.ndarray(len(mapping) // self._dtype.itemsize, self._dtype, mapping)


def pieces(array: Array) -> Iterator[Array]:
    """The array in slices of PIECE values; a mapped one is not in memory beyond a slice."""
    for start in range(0, len(array), PIECE):
        yield array[start : start + PIECE]
        release(array)


def release(array: Array) -> None:
    """Let a mapped array leave the memory; what is used again is read again."""
    if isinstance(array.base, mmap.mmap) and hasattr(array.base, "madvise"):
        array.base.madvise(mmap.MADV_DONTNEED)


def times(array: npt.NDArray[np.float64]) -> Times:
    """Of times (n,), NaN where an event has none."""
    timed, first, last = 0, np.inf, -np.inf
    for piece in pieces(array):
        present = piece[~np.isnan(piece)]
        timed += len(present)
        first, last = present.min(initial=first), present.max(initial=last)
    return Times(timed, float(first), float(last))


def nth_smallest(array: npt.NDArray[np.float64], place: int) -> float:
    """The value at `place` of the sorted array without its NaNs, which are not counted.

    It is found 16 bits at a time, from the first: each pass counts the values by their next 16 bits
    and keeps those that the place lies among. The bits of numbers are in the order of the numbers.
    """
    prefix, known = np.uint64(0), 0
    for _ in range(4):
        counts = np.zeros(1 << 16, np.int64)
        for piece in pieces(array):
            keys = _keys(piece[~np.isnan(piece)])
            if known:
                keys = keys[keys >> np.uint64(64 - known) == prefix]
            digits = (keys >> np.uint64(48 - known)) & np.uint64(0xFFFF)
            counts += np.bincount(digits.astype(np.int64), minlength=1 << 16)
        ends = np.cumsum(counts)
        digit = int(np.searchsorted(ends, place, side="right"))
        place -= int(ends[digit] - counts[digit])
        prefix, known = (prefix << np.uint64(16)) | np.uint64(digit), known + 16
    return _number(int(prefix))


_SIGN = 1 << 63


def _keys(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Integers in the order of `numbers`: their bits, with the sign turned or, below 0, all."""
    bits = np.ascontiguousarray(numbers).view(np.uint64)
    return np.where(bits >= np.uint64(_SIGN), ~bits, bits | np.uint64(_SIGN))


def _number(key: int) -> float:
    bits = key ^ _SIGN if key >= _SIGN else ~key & (2 * _SIGN - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])
