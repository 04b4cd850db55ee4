"""Files, functions and folders can be read at once; each exception has a reason."""

from __future__ import annotations

import ast
from collections import Counter

from tests.structure.tree import CODE, name_of, python_files

LINES, PARAMETERS, MODULES = 300, 6, 12
LONG_FILES = {
    "tests/training/report/test_page.py": "the page of a report, whose sections share one bundle",
}
"""File -> why it stays longer."""
ONE_PER_OPTION = "a command: typer takes one parameter for each option"
MANY_PARAMETERS = {
    "demo/__main__.py:demo": ONE_PER_OPTION,
    "engines/__main__.py:recommend": ONE_PER_OPTION,
    "engines/__main__.py:explain_item": ONE_PER_OPTION,
    "streams/commands/dead_letters.py:replay_letters": ONE_PER_OPTION,
    "streams/commands/sending.py:simulate": ONE_PER_OPTION,
    "streams/commands/sending.py:import_": ONE_PER_OPTION,
    "training/als_command.py:fit_als": ONE_PER_OPTION,
    "training/__main__.py:evaluate": ONE_PER_OPTION,
    "training/retrain_commands.py:retrain": ONE_PER_OPTION,
    "training/__main__.py:tune": ONE_PER_OPTION,
    "training/retrain_commands.py:worker": ONE_PER_OPTION,
    "clients/python/src/eddyline_client/producer.py:__init__": (
        "the public constructor of a client: keyword options with defaults"
    ),
}
"""File and function -> why it takes more."""
FULL_FOLDERS: dict[str, str] = {}
"""Folder -> why it holds more."""


def test_no_file_is_over_300_lines() -> None:
    long = {
        name_of(path): lines
        for path in python_files(*CODE)
        if (lines := len(path.read_text().splitlines())) > LINES
    }
    assert set(long) == set(LONG_FILES), _difference(long, LONG_FILES)


def test_no_function_takes_more_than_six_parameters() -> None:
    many = {
        f"{name_of(path)}:{function.name}": count
        for path in python_files(*CODE)
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and (count := _parameters(function)) > PARAMETERS
    }
    assert set(many) == set(MANY_PARAMETERS), _difference(many, MANY_PARAMETERS)


def test_no_folder_holds_more_than_a_dozen_modules() -> None:
    modules = Counter(
        name_of(path.parent)
        for path in python_files(*CODE)
        if path.name not in {"__init__.py", "__main__.py"}
    )
    full = {folder: count for folder, count in modules.items() if count > MODULES}
    assert set(full) == set(FULL_FOLDERS), _difference(full, FULL_FOLDERS)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    names = [
        argument.arg
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    ]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _difference(sizes: dict[str, int], exceptions: dict[str, str]) -> str:
    too_large = {name: size for name, size in sizes.items() if name not in exceptions}
    return (
        f"too large: {too_large}; exceptions without need: {sorted(set(exceptions) - set(sizes))}"
    )
