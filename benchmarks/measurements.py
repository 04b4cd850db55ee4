"""Writes one row for each measurement of speed into results/results.json.

`record` replaces the row of the same name and leaves the others.
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
    rows = msgspec.json.decode(RESULTS.read_bytes(), type=list[Row]) if RESULTS.exists() else []
    others = [other for other in rows if other.name != name]
    data = msgspec.json.format(
        msgspec.json.encode(sorted([*others, row], key=lambda row: row.name)), indent=1
    )
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_bytes(data + b"\n")
    temporary.replace(RESULTS)
    return row


def machine() -> str:
    """Processor, cores and Python, as far as they are known."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        cpu = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu
        )
    except OSError:
        pass
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
