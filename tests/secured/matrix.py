"""Runs every cell of the matrix on real servers: `python -m tests.secured.matrix [-k NAME]`.

Exits with 1 when a cell fails, and when Apache Kafka is missing.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import pytest

from testing.apache import kafka_home

KAFKA = ("plaintext", "scram", "sasl-ssl", "mtls")
"""Names of tests.secured.conftest.PROTOCOLS."""
REDIS = ("redis", "rediss", "acl", "sentinel")
"""Names of tests.secured.redis_access."""
ALL = "EDDYLINE_MATRIX_ALL"
"""Environment variable; 1: every cell."""


def cells(every: bool) -> list[tuple[str, str]]:
    """Pairs of a Kafka and a Redis: all, or as few as have each name once."""
    if every:
        return list(itertools.product(KAFKA, REDIS))
    return [(kafka, REDIS[(number + 1) % len(REDIS)]) for number, kafka in enumerate(KAFKA)]


def main(arguments: list[str]) -> int:
    """Run the cells with pytest's arguments; returns its exit status."""
    if kafka_home() is None:
        print("error: the matrix needs Apache Kafka 4: set KAFKA_HOME, with java on PATH")
        return 1
    os.environ[ALL] = "1"
    here = Path(__file__).parent / "test_matrix.py"
    return int(pytest.main([str(here), "-v", "--durations=0", *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
