"""The oracle: a plain fold of the logs in Python, as slow and as obvious as it can be. Redis and
the archive must equal it.

`records` reads the logs, `fold` computes what must follow from them, `state` reads what Redis
holds, `archive` checks the Parquet files, `compare` lists the differences.
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
