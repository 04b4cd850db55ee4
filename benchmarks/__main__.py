"""Runs every benchmark in turn: `python -m benchmarks speed` or `python -m benchmarks quality`.

After those of speed it prints the table of results/results.json.
"""

from __future__ import annotations

import subprocess
import sys

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.measurements import RESULTS, Row

SPEED = (
    "benchmarks.ingest",
    "benchmarks.memory",
    "benchmarks.reads",
    "benchmarks.als_read",
    "benchmarks.fold_in",
    "benchmarks.two_tower_pass",
    "benchmarks.ensemble",
    "benchmarks.experiments",
    "benchmarks.retrain",
    "benchmarks.swap",
    "benchmarks.page_readers",
)
QUALITY = (
    "benchmarks.quality",
    "benchmarks.quality_ensemble",
    "benchmarks.live_vs_retrained",
    "benchmarks.headline",
    "benchmarks.first_retrain",
)


def table() -> Table:
    """benchmarks/results/results.json as a table."""
    table_of_rows = Table("name", "value", "unit", "reference", "its value", "ratio", "command")
    for row in msgspec.json.decode(RESULTS.read_bytes(), type=list[Row]):
        table_of_rows.add_row(
            row.name,
            f"{row.value:,.4g}",
            row.unit,
            row.reference,
            f"{row.reference_value:,.4g}",
            f"{row.ratio:.3g}",
            row.command,
        )
    return table_of_rows


def main() -> int:
    """Runs each benchmark in a process of its own; exit status 1 when one failed, after the others
    have run.
    """
    sets = {"speed": SPEED, "quality": QUALITY}
    if len(sys.argv) != 2 or sys.argv[1] not in sets:
        print("usage: python -m benchmarks speed | quality", file=sys.stderr)
        return 2
    failed = []
    for module in sets[sys.argv[1]]:
        print(f"== python -m {module}", flush=True)
        if subprocess.run([sys.executable, "-m", module], check=False).returncode:
            failed.append(module)
    if sys.argv[1] == "speed":
        Console(width=180).print(table())
    for module in failed:
        print(f"failed: python -m {module}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
