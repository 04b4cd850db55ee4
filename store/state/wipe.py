"""Deletes everything in Redis that is computed from the log, so that it can be computed again.

Counters must not remain without their positions, nor positions without their counters. So each
shard gets a mark, shard 0 first, and then loses its keys and its mark, shard 0 last. While a mark
exists the state is incomplete and ingest refuses to start (`check`). A wipe that was interrupted is
run again.

A wipe also deletes what was computed with another REDIS_SHARDS, so that REDIS_SHARDS may change,
and moves what no log holds (`carry_over`). The marks name all numbers of shards whose keys are
being deleted: the settings, which named them before, are deleted as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import translate
from functools import partial
from typing import Any

from core.errors import StoreError
from core.settings import Settings
from store.state import connection, keys, shard_numbers
from store.state.carry_over import carry_over
from store.state.connection import Client, named_errors
from store.state.shards import Shards

KEYS_PER_COMMAND = 1000
"""Keys in one UNLINK, which takes Redis some milliseconds."""


def count(settings: Settings) -> dict[str, int]:
    """Number of keys that `wipe` would delete, by the first word of the key.

    Raises StoreUnavailable, StoreCorrupt.
    """
    kinds: Counter[str] = Counter()
    with (
        named_errors("counting what is computed from the log"),
        _to_wipe(settings) as (clients, _),
    ):
        for client in clients:
            names = keys.of(client)
            kinds.update(names.without_prefix(key).split(":")[0] for key in _owned(client))
    return dict(sorted(kinds.items()))


def wipe(settings: Settings) -> None:
    """Delete these keys. Raises StoreUnavailable: run it again; StoreCorrupt."""
    with (
        named_errors("deleting what is computed from the log"),
        _to_wipe(settings) as (clients, numbers),
    ):
        for client in clients:
            client.set(keys.of(client).wipe, " ".join(map(str, numbers)))
        if len(numbers) > 1:
            with Shards(settings) as shards:
                for client in clients:
                    carry_over(client, shards)
        for client in reversed(clients):
            _delete(client)
            client.unlink(keys.of(client).wipe)


def numbers_to_wipe(first: Client) -> list[int]:
    """Each number of shards whose keys `wipe` deletes; usually only one's own.

    `first`: the client of shard 0. Raises StoreUnavailable, StoreCorrupt.
    """
    numbers = {keys.of(first).shards, *shard_numbers.present(first)}
    for mark in _marks(first):
        numbers.update(int(number) for number in mark.split())
    return sorted(numbers)


def interrupted(first: Client) -> bool:
    """Whether a wipe was begun and not finished, with whatever REDIS_SHARDS.

    `first`: the client of shard 0. Raises StoreUnavailable.
    """
    return bool(_marks(first))


def check(first: Client) -> None:
    """Raises StoreError when a wipe was interrupted. `first`: the client of shard 0."""
    if interrupted(first):
        raise incomplete()


def incomplete() -> StoreError:
    """The error where a mark exists."""
    return StoreError(
        "a rebuild that was emptying Redis was interrupted, so the state is incomplete. "
        "Run the rebuild again "
        "(`python -m streams rebuild --wipe`), then start ingest"
    )


def _marks(first: Client) -> list[bytes]:
    with named_errors("looking for an interrupted wipe"):
        marks = [
            shard_numbers.read_of(first, names, partial(first.get, names.wipe))
            for names in (shard_numbers.ONE, shard_numbers.SEVERAL)
        ]
    return [mark for mark in marks if mark is not None]


@contextmanager
def _to_wipe(settings: Settings) -> Iterator[tuple[list[Client], list[int]]]:
    """A client of each shard that has keys to delete, and the numbers of shards."""
    with connection.connect(settings) as first:
        numbers = numbers_to_wipe(first)
    with ExitStack() as stack:
        clients: list[Client] = []
        if (most := numbers[-1]) > 1:
            several = settings.model_copy(update={"redis_shards": most})
            clients += stack.enter_context(Shards(several))
        if 1 in numbers:
            one = settings.model_copy(update={"redis_shards": 1})
            clients.append(stack.enter_context(connection.connect(one)))
        yield clients, numbers


def _delete(client: Client) -> None:
    batch: list[Any] = []
    for key in _owned(client):
        batch.append(key)
        if len(batch) == KEYS_PER_COMMAND:
            client.unlink(*batch)
            batch.clear()
    if batch:
        client.unlink(*batch)


def _owned(client: Client) -> Iterator[bytes]:
    """The keys of a shard that are computed from the log."""
    names = keys.of(client)
    is_owned = re.compile("|".join(map(translate, names.owned)).encode()).match
    for key in client.scan_iter(names.prefix + "*", count=KEYS_PER_COMMAND):
        if is_owned(key):
            yield key
