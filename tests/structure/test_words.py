"""Retired words and vague names stay out; docs/glossary.md says which words are retired.

Both are refused in code, the retired words in docs too. Each exception has a reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.process import ROOT
from tests.structure.tree import CODE, name_of, pages, python_files

GLOSSARY = ROOT / "docs" / "glossary.md"
VAGUE = frozenset(
    {"found", "asked", "told", "chosen", "wanted", "given", "kept", "held", "taken", "each"}
)
"""Names that say what was done with a value, not what it is."""
VAGUE_CLASSES = VAGUE | {"seen", "noted", "made", "beside"}
INTERFACES = {
    r"items:young(:changes)?|ITEMS_YOUNG(_CHANGES)?": "Redis keys, and the constants for them",
    r"\byoung_items\b|\byoung_item_users\b|\bYOUNG_ITEMS\b|YOUNG_ITEM_USERS": "settings",
    r"ensemble_fusion|ENSEMBLE_FUSION": "a setting",
    r"[\"'`]fusion[\"'`]|\bfusion=": "a field of ensemble.json",
    r"[\"']mixture[\"']": "a key of evaluation/metrics.json",
    r"[Rr]eciprocal rank fusion": "the name of a published method",
    r"\bcustomer_id\b": "the column of a public data set",
    r"headline_fusions": "the old name of a command, which still works",
}
"""Pattern of a text in which a retired word stays -> why."""


def retired() -> list[str]:
    """The words in the last column of the glossary."""
    rows = [line.split("|") for line in GLOSSARY.read_text().splitlines() if line.startswith("| ")]
    return sorted(
        {word.strip() for row in rows[1:] for word in row[-2].split(",") if word.strip(" -")}
    )


def test_the_glossary_names_retired_words() -> None:
    assert {"mixture", "ballot", "young", "model plane"} <= set(retired())


def _pattern(word: str) -> re.Pattern[str]:
    """The word in prose, in snake_case, in CamelCase and in capitals, also in the plural."""
    parts = word.split()
    lower = r"[\s_-]+".join(parts)
    camel = "".join(part.capitalize() for part in parts)
    upper = r"[\s_-]+".join(part.upper() for part in parts)
    title = lower[0].upper() + lower[1:]
    return re.compile(
        rf"(?<![A-Za-z])(?:{lower}|{title})s?(?![a-z])|{camel}s?(?![a-z])"
        rf"|(?<![A-Z]){upper}S?(?![A-Z])"
    )


def _texts() -> Iterator[Path]:
    own = Path(__file__)
    yield from (path for path in python_files(*CODE) if path != own)
    yield from (page for page in pages() if page != GLOSSARY)


@pytest.mark.parametrize("word", retired())
def test_a_retired_word_does_not_come_back(word: str) -> None:
    pattern, interfaces = _pattern(word), re.compile("|".join(INTERFACES))
    lines = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in _texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(interfaces.sub("", line))
    ]
    assert not lines, "\n".join(lines)


def test_names_say_what_the_value_is() -> None:
    names = [
        f"{name_of(path)}:{line}: {name}"
        for path in python_files(*CODE)
        for name, line, vague in _names(ast.parse(path.read_text()))
        if name.strip("_").lower() in vague
    ]
    assert not names, "\n".join(names)


def _names(tree: ast.Module) -> Iterator[tuple[str, int, frozenset[str]]]:
    """Every name that the module gives: to a variable, a parameter, an attribute, a function, a
    class.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno, VAGUE
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno, VAGUE
            case ast.ClassDef(name=name):
                yield name, node.lineno, VAGUE_CLASSES
