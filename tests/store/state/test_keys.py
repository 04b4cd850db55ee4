"""Checks that docs/redis-keys.md lists every key and no other."""

from __future__ import annotations

import inspect
import re

from store.state import keys
from testing.process import ROOT


def test_the_page_for_operators_lists_every_key() -> None:
    page = (ROOT / "docs" / "redis-keys.md").read_text("utf-8")
    documented = {
        re.sub(r"\{[^}]*\}", "*", name)
        for name in re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    }
    not_keys = {"HISTORY", "POPULAR_UNLABELLED", "OWNED"}
    constants = {
        value for name, value in vars(keys).items() if name.isupper() and name not in not_keys
    }
    functions = {
        re.sub(r"\d+", "*", function(*["1"] * len(inspect.signature(function).parameters)))
        for name, function in inspect.getmembers(keys, inspect.isfunction)
        if name not in {"escape", "unescape", "all_of_user"}
    }
    assert documented == constants | functions
