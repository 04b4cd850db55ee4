"""Computes what Redis and the archive must hold: a fold of the logs in plain Python.

The oracle is simple, not fast. `records` reads the logs, `fold` computes the expected state,
`state` reads the state in Redis, `compare` lists the differences, `archive` compares the Parquet
files. Start with `fold`.
"""

from tests.oracle.archive import archive_differences
from tests.oracle.compare import assert_equal, dead_letter_differences, dead_letters, differences
from tests.oracle.fold import Expected, fold
from tests.oracle.records import Record, RecordedLog, record
from tests.oracle.state import State, popularity_positions, positions, read_state

__all__ = [
    "Expected",
    "Record",
    "RecordedLog",
    "State",
    "archive_differences",
    "assert_equal",
    "dead_letter_differences",
    "dead_letters",
    "differences",
    "fold",
    "popularity_positions",
    "positions",
    "read_state",
    "record",
]
