"""Measures a compaction of the archive: `python -m benchmarks.compaction` writes the row
`compaction`.

A folder of small files of random events, as `streams archive` writes them at a low rate, is merged
by `streams archive compact`.

value      seconds to read three columns of all rows after it
reference  the same before it, from the small files

Prints the CPU time of the compaction, its peak resident memory, and the bytes before and after.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import uuid

import numpy as np
import pyarrow as pa

from benchmarks.measurements import record
from store.archive.archive import Archive
from store.archive.compaction import Compaction, Options
from store.archive.schema import SCHEMA

COMMAND = "python -m benchmarks.compaction"
TOPIC = "interactions"


def fill(archive: Archive, files: int, rows: int) -> None:
    """Append `files` files of `rows` random events each."""
    rng = np.random.default_rng(1)
    for first in range(0, files * rows, rows):
        times = pa.array(1.7e9 + np.arange(first, first + rows) / 50.0)
        columns = {
            "partition": pa.array(np.zeros(rows, np.int32)),
            "offset": pa.array(np.arange(first, first + rows)),
            "broker_time": times,
            "event_id": pa.array([str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(rows)]),
            "user_id": pa.array(rng.integers(0, 1_000_000, rows)).cast(pa.string()),
            "item_id": pa.array(rng.integers(0, 100_000, rows)).cast(pa.string()),
            "event_type": pa.array(["view"] * rows),
            "timestamp": times,
        }
        table = pa.table(
            [columns.get(field.name, pa.nulls(rows, field.type)) for field in SCHEMA], SCHEMA
        )
        archive.append(TOPIC, 0, first, first + rows, table)


def read(archive: Archive) -> float:
    """Seconds to read three columns of all rows."""
    began = time.monotonic()
    for _ in archive.read(TOPIC, columns=["offset", "user_id", "item_id"]):
        pass
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_440)
    parser.add_argument("--rows", type=int, default=2_000, help="of a file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive(folder)
        fill(archive, options.files, options.rows)
        before, began = read(archive), time.process_time()
        result = Compaction(archive, TOPIC, Options(settle_s=0.0)).run()
        cpu = time.process_time() - began
        after = read(archive)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = options.files * options.rows
    record("compaction", after, "s", "the same rows from the small files", before, COMMAND)
    print(
        f"{rows:,} rows: {result.merged} files of {result.bytes_before / 1e6:.0f} MB became "
        f"{result.into} of {result.bytes_after / 1e6:.0f} MB by {cpu:.1f} s of CPU "
        f"({cpu / rows * 1e6:.2f} us a row), peak {peak:,.0f} MB; read in {before:.2f} s before, "
        f"{after:.2f} s after"
    )


if __name__ == "__main__":
    main()
