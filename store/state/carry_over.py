"""Moves what no log holds to the shards of another REDIS_SHARDS: exposures and definitions of
experiments, the layouts of topics, the last retrain and the announced bundle.

Each step may be repeated, so a move that was interrupted is run again.
"""

from __future__ import annotations

import re
from typing import Any

from store.state import keys
from store.state.connection import Client
from store.state.shards import Shards, users_by_shard

_PAGE = 1000
"""Members in one command, and keys of one SCAN, each of which takes Redis about a millisecond."""
_EXPOSED = re.compile(r"experiment:[^:]+:exposed")


def carry_over(source: Client, shards: Shards) -> None:
    """Move it from a shard of the former number to `shards`. What is in its place stays."""
    names = keys.of(source)
    for raw in source.scan_iter(names.prefix + "*", count=_PAGE):
        if _EXPOSED.fullmatch(names.without_prefix(raw)):
            _move_exposures(source, names.without_prefix(raw), shards)
    if keys.of(shards.first).prefix != names.prefix:
        for raw in source.scan_iter(names.layout("*"), count=_PAGE):
            _move_hash(source, names.without_prefix(raw), shards.first)
        for key in (names.experiments, names.retrain_last):
            _move_hash(source, key.removeprefix(names.prefix), shards.first)
        if (version := source.get(names.model_current)) is not None:
            shards.first.set(keys.of(shards.first).model_current, version, nx=True)
            source.unlink(names.model_current)


def _move_exposures(source: Client, key: str, shards: Shards) -> None:
    prefix = keys.of(source).prefix
    page: dict[str, float] = {}
    for member, answers in source.zscan_iter(prefix + key, count=_PAGE):
        page[member.decode()] = answers
        if len(page) >= _PAGE:
            _move_page(source, key, page, shards)
            page = {}
    _move_page(source, key, page, shards)


def _move_page(source: Client, key: str, page: dict[str, float], shards: Shards) -> None:
    prefix = keys.of(source).prefix
    for shard, users in users_by_shard(page, len(shards)).items():
        target = shards[shard]
        if keys.of(target).prefix != prefix:
            # the greater one: a move that is repeated adds nothing
            target.zadd(keys.of(target).prefix + key, {user: page[user] for user in users}, gt=True)
            source.zrem(prefix + key, *users)


def _move_hash(source: Client, key: str, target: Client) -> None:
    fields: Any = source.hgetall(keys.of(source).prefix + key)
    if fields:
        pipe: Any = target.pipeline(transaction=True)
        for name, value in fields.items():
            pipe.hsetnx(keys.of(target).prefix + key, name, value)
        pipe.execute()
        source.unlink(keys.of(source).prefix + key)
