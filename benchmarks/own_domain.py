"""Plays docs/your-own-domain.md in a fresh clone with an empty HOME: how long the first hour is.

python -m benchmarks.own_domain
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from testing import document
from testing.process import ROOT

PAGE = Path("docs") / "your-own-domain.md"
LIMIT_S = 15 * 60
"""Seconds to the first recommendation of one's own, installation and tuning included."""
PASSED_ON = ("PATH", "LANG", "TMPDIR", "PIP_")
"""Beginnings of the variables that the clone may use: where programs and packages come from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", default="HEAD", help="what is cloned and checked out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eddyline-own-domain-") as text:
        clone, home = Path(text) / "clone", Path(text) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
        commit = subprocess.run(
            ["git", "rev-parse", arguments.commit], cwd=ROOT, check=True, capture_output=True
        )
        subprocess.run(
            ["git", "checkout", "--quiet", commit.stdout.decode().strip()], cwd=clone, check=True
        )
        environment = {
            name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)
        }
        environment |= {"HOME": str(home), "COLUMNS": "80"}
        _report(document.play(document.blocks(clone / PAGE), clone, environment, 2 * LIMIT_S))


def _report(played: list[document.Played]) -> None:
    """Print the seconds by section, and those to the first recommendation."""
    total = first = 0.0
    for number, part in enumerate(played):
        total += part.seconds
        if not first and '"recommendations":[{' in part.output.replace(" ", ""):
            first = total
        if number + 1 == len(played) or played[number + 1].block.heading != part.block.heading:
            print(f"{total:7.0f} s  {part.block.heading}")
    print(f"{first:7.0f} s  to the first recommendation, of {LIMIT_S} s")
    if not 0 < first < LIMIT_S:
        raise SystemExit("too late")


if __name__ == "__main__":
    main()
