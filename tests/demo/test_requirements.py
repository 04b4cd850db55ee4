"""The lock files pin every package that the code imports, at the same versions."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions

import pytest

from testing.process import ROOT

LOCK_OF_ROOM = {
    "core": "serve",
    "models": "serve",
    "store": "serve",
    "engines": "serve",
    "api": "serve",
    "streams": "streams",
    "training": "train",
    "testing": "demo",
    "demo": "demo",
}
OPTIONAL = {
    "sqlalchemy": "database",
    "psycopg": "database",
    "openpyxl": "excel",
    "py4j": "spark",
    "pyspark": "spark",
    "pyarrow": "streams",
    # testing/secured/oidc.py and testing/certificates.py, which only tests use
    "cryptography": "dev",
    "trustme": "dev",
}
"""Imported only where they are needed, and in another lock."""


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pairs = [line.split("#")[0].split(";")[0].strip().split("==") for line in lines if "==" in line]
    return {package.lower().replace("_", "-"): version for package, version in pairs}


@pytest.mark.parametrize("room", sorted(LOCK_OF_ROOM))
def test_every_package_that_a_room_imports_is_in_its_lock(room: str) -> None:
    distributions, own = (
        packages_distributions(),
        {path.name for path in ROOT.iterdir() if path.is_dir()},
    )
    locked = set(pins(LOCK_OF_ROOM[room]))
    for path in (ROOT / room).rglob("*.py"):
        for name in _imported(path.read_text()):
            if name in sys.stdlib_module_names or name in own:
                continue
            packages = {
                package.lower().replace("_", "-") for package in distributions.get(name, [name])
            }
            extra = set(pins(OPTIONAL[name])) if name in OPTIONAL else set()
            assert packages & (locked | extra), (
                f"{path} imports {name}, which requirements/{LOCK_OF_ROOM[room]}.txt lacks"
            )


@pytest.mark.parametrize("name", ["serve", "streams", "train", "database", "excel", "demo"])
def test_every_lock_pins_what_the_whole_lock_pins(name: str) -> None:
    whole = pins("dev")
    for package, version in pins(name).items():
        assert whole.get(package) == version, (
            f"requirements/{name}.txt has {package} {version}; run make lock"
        )


def test_no_lock_names_a_place_to_download_from() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "--" not in "".join(
            line for line in text.splitlines() if not line.lstrip().startswith("#")
        ), path
        assert "://" not in text, path


def _imported(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
