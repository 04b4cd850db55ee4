"""Computes the partition of a key as Kafka's own clients do, by murmur2.

The reference is org.apache.kafka.common.utils.Utils.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_M = np.uint32(_MULTIPLIER)
_WORD = 0xFFFFFFFF


def partitions_of(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.uint32]:
    """The partition of each key in a topic of `partitions` partitions: (n_keys,) u32.

    Vectorised, because a loop in Python takes some 3 us a key: this takes 0.15 us a key for 1,000
    short keys (`python -m benchmarks.partition_check` has the cost of the whole check).
    """
    if not keys:
        return np.empty(0, np.uint32)
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    whole, tail = lengths // 4, lengths % 4 > 0
    columns = int(lengths.max()) // 4 + 1  # the last column has a tail or nothing
    # padded with zeros
    words = np.array(keys, f"S{4 * columns}").view("<u4").reshape(len(keys), columns)
    mixed = words * _M
    mixed ^= mixed >> np.uint32(24)
    mixed *= _M
    hashes = lengths ^ np.uint32(_SEED)
    for column in range(columns):
        hashes = np.where(column < whole, hashes * _M ^ mixed[:, column], hashes)
        hashes = np.where(tail & (column == whole), (hashes ^ words[:, column]) * _M, hashes)
    hashes ^= hashes >> np.uint32(13)
    hashes *= _M
    hashes ^= hashes >> np.uint32(15)
    return (hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of one key in a topic of `partitions` partitions: some 3 us."""
    length = len(key)
    value = _SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * _MULTIPLIER & _WORD
        word = (word ^ word >> 24) * _MULTIPLIER & _WORD
        value = (value * _MULTIPLIER & _WORD) ^ word
    if length > whole:
        value = (value ^ int.from_bytes(key[whole:], "little")) * _MULTIPLIER & _WORD
    value = (value ^ value >> 13) * _MULTIPLIER & _WORD
    value ^= value >> 15
    return (value & 0x7FFFFFFF) % partitions
