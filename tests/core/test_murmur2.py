"""The vectorised murmur2 gives the partitions of Kafka's own clients."""

from __future__ import annotations

import random

import pytest
from aiokafka.partitioner import murmur2

from core.murmur2 import partitions_of


@pytest.mark.parametrize("partitions", [1, 4, 7, 1000])
def test_every_key_gets_the_partition_of_the_reference(partitions: int) -> None:
    pick = random.Random(11)
    keys = [pick.randbytes(pick.randrange(40)) for _ in range(500)] + [
        b"\0" * length for length in range(9)
    ]
    keys += [b"user-42", "ж".encode(), b"x" * 256]
    assert partitions_of(keys, partitions).tolist() == [
        (murmur2(key) & 0x7FFFFFFF) % partitions for key in keys
    ]


def test_no_keys_give_no_partitions() -> None:
    assert partitions_of([], 4).tolist() == []
