"""The tree in the docstring of core/errors.py is the tree of its classes."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from core import errors

ROOT = Path(__file__).parents[2]
_LINE = re.compile(r"^(?P<indent>[│ ]*)[├└]── (?P<name>\w+)")


def _drawn() -> dict[str, str]:
    """Class -> base class, as the docstring draws it."""
    parents: dict[str, str] = {}
    path = ["EddylineError"]
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match:
            depth = len(match["indent"]) // 4 + 1
            path[depth:] = [match["name"]]
            parents[match["name"]] = path[depth - 1]
    return parents


def _defined() -> dict[str, str]:
    """Class -> base class, as the module defines it."""
    classes = [
        error
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if error.__module__ == errors.__name__
    ]
    return {
        error.__name__: error.__base__.__name__
        for error in classes
        if error is not errors.EddylineError and error.__base__
    }


def test_the_docstring_draws_the_tree_of_the_classes() -> None:
    assert _drawn() == _defined()


def test_no_error_of_the_tree_is_defined_elsewhere() -> None:
    rooms = ("core", "models", "store", "engines", "streams", "training", "api", "testing", "demo")
    elsewhere = []
    for path in (
        path
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if path != ROOT / "core" / "errors.py"
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                elsewhere += [
                    f"{path}: {node.name}"
                    for base in bases
                    if base in {"EddylineError", *_defined()}
                ]
    assert elsewhere == []


def test_every_error_has_a_docstring() -> None:
    assert all(inspect.getdoc(getattr(errors, name)) for name in _defined())
