"""Checks that docs/redis-keys.md lists every key and no other, and that shards prefix each."""

from __future__ import annotations

import inspect
import re

from store.state.keys import Keys
from testing.process import ROOT

NOT_KEYS = {"tag", "prefix", "owned", "without_prefix", "user_id", "all_of_user"}


def _names(shard_keys: Keys) -> set[str]:
    """Every key of a shard, with `*` for ids and numbers."""
    names: set[str] = set()
    for name, member in inspect.getmembers(shard_keys):
        if name.startswith("_") or name in NOT_KEYS:
            continue
        if isinstance(member, str):
            names.add(member)
        elif callable(member):
            key = member(*["ID"] * len(inspect.signature(member).parameters))
            names.add(key.replace("ID", "*"))
    return names


def test_the_page_for_operators_lists_every_key() -> None:
    page = (ROOT / "docs" / "redis-keys.md").read_text("utf-8")
    documented = {
        re.sub(r"\{[^}]*\}", "*", name)
        for name in re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    }
    assert documented == _names(Keys())


def test_every_key_of_a_shard_begins_with_its_tag() -> None:
    assert _names(Keys(3, 4)) == {"{3}:" + name for name in _names(Keys())}
