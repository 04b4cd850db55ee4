"""What is installed has every file that its modules read."""

from __future__ import annotations

import tomllib

from testing.process import ROOT
from tests.structure.tree import ROOMS, name_of


def test_every_file_beside_the_modules_is_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]
    packaged = {
        name_of(path)
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    artifacts = ROOT / "models" / "artifacts"
    needed = {
        name_of(path)
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and artifacts not in path.parents
    }
    assert needed == packaged
