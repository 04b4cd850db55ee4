"""One row a measurement, in benchmarks/results/results.json.

`record` merges: a run replaces the rows of its own names and leaves the others.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec

RESULTS = Path(__file__).with_name("results") / "results.json"


class Row(msgspec.Struct):
    """`reference` says what `reference_value` measures, in the same run; `ratio` = value /
    reference_value.
    """

    name: str
    value: float
    unit: str
    reference: str
    reference_value: float
    ratio: float
    command: str
    machine: str


def record(
    name: str,
    value: float,
    unit: str,
    reference: str,
    reference_value: float,
    command: str,
    path: Path = RESULTS,
) -> Row:
    """Write one row and return it."""
    row = Row(
        name,
        round(value, 4),
        unit,
        reference,
        round(reference_value, 4),
        round(value / reference_value, 4),
        command,
        machine(),
    )
    rows = msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.exists() else []
    kept = [other for other in rows if other.name != name]
    data = msgspec.json.format(
        msgspec.json.encode(sorted([*kept, row], key=lambda each: each.name)), indent=1
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data + b"\n")
    temporary.replace(path)
    return row


def machine() -> str:
    """Processor, cores and Python, as far as the system tells."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        cpu = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu
        )
    except OSError:
        pass
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
