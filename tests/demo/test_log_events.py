"""docs/log-events.md lists every log event of the code with its levels and fields, and no other."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from testing.process import ROOT

ROOMS = ("core", "models", "store", "engines", "streams", "training", "api", "testing", "demo")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
LOGGERS = {"log", "_log"}
"""The names of the loggers in the code."""


class Event(NamedTuple):
    """One call of a logger."""

    name: str
    level: str
    fields: frozenset[str]
    place: str


def _levels(function: ast.expr, aliases: dict[str, list[str]]) -> list[str]:
    """The levels at which a call of `function` logs: none where it is no logger."""
    match function:
        case ast.Attribute(value=ast.Name(id=logger), attr=level):
            if logger in LOGGERS and level in LEVELS:
                return ["error" if level == "exception" else level]
        case ast.IfExp(body=first, orelse=second):
            return [*_levels(first, aliases), *_levels(second, aliases)]
        case ast.Name(id=name):
            return aliases.get(name, [])
    return []


def _aliases(tree: ast.Module) -> dict[str, list[str]]:
    """Variables that stand for a method of a logger: `level = _log.error if ... else ...`."""
    return {
        node.targets[0].id: levels
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and (levels := _levels(node.value, {}))
    }


@functools.cache
def _events() -> list[Event]:
    return list(_read_events())


def _read_events() -> Iterator[Event]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text())
            aliases = _aliases(tree)
            for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
                # `**fields` is given as "..."
                fields = frozenset(keyword.arg or "..." for keyword in call.keywords)
                place = f"{path.relative_to(ROOT)}:{call.lineno}"
                for level in _levels(call.func, aliases):
                    for name in _names(call.args[0]):
                        yield Event(name, level, fields, place)


def _names(argument: ast.expr) -> list[str]:
    """The literal, or both of `"a" if condition else "b"`."""
    match argument:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.IfExp(body=first, orelse=second):
            return [*_names(first), *_names(second)]
    return [ast.unparse(argument)]


def _page() -> dict[str, tuple[set[str], set[str]]]:
    """Event -> levels and fields, as the tables of the page have them."""
    rows: dict[str, tuple[set[str], set[str]]] = {}
    for line in (ROOT / "docs" / "log-events.md").read_text().splitlines():
        if match := re.match(r"\| `([^`]+)` \| ([^|]*) \| ([^|]*) \|", line):
            name, levels, fields = match.groups()
            assert name not in rows, f"{name} has two rows"
            rows[name] = set(levels.split(", ")), set(re.findall(r"`([^`]+)`", fields))
    return rows


def test_every_log_event_is_a_snake_case_name() -> None:
    bad = [event for event in _events() if not re.fullmatch(r"[a-z][a-z0-9_]*", event.name)]
    assert not bad, "\n".join(f"{event.place}: {event.name}" for event in bad)


def test_the_page_lists_every_event_of_the_code_and_no_other() -> None:
    names = {event.name for event in _events()}
    page = set(_page())
    assert page == names, (
        f"missing: {sorted(names - page)}; not in the code: {sorted(page - names)}"
    )


@pytest.mark.parametrize("column", ["levels", "fields"])
def test_the_page_has_the_levels_and_fields_of_every_event(column: str) -> None:
    code: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for event in _events():
        levels, fields = code[event.name]
        levels.add(event.level)
        fields |= event.fields
    index = ["levels", "fields"].index(column)
    page = _page()
    differences = {
        name: sorted(values[index] ^ page[name][index])
        for name, values in code.items()
        if name in page and values[index] != page[name][index]
    }
    assert not differences
