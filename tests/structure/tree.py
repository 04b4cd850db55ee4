"""The files of the project that the tests of its structure read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testing.process import ROOT

ROOMS = ("core", "models", "store", "engines", "streams", "training", "api", "testing", "demo")
CODE = (*ROOMS, "tests", "benchmarks", "clients/python")


def python_files(*folders: str) -> Iterator[Path]:
    """Every module of the folders, below the root."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def pages() -> Iterator[Path]:
    """Every page of documentation."""
    yield from sorted(ROOT.glob("*.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield ROOT / "benchmarks" / "README.md"


def name_of(path: Path) -> str:
    """The path from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()
