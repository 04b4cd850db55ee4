"""Notices state that was written with another REDIS_SHARDS than this process has.

Keys of an only shard have no prefix, those of several begin with `{0}:`, `{1}:`, and so on: state
of one number is invisible with another, or visible in part. `streams rebuild --wipe` changes the
number: it deletes the keys of the former one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from core.errors import ConfigurationError, StoreCorrupt
from store.state import keys
from store.state.connection import Client, named_errors
from store.state.keys import Keys
from store.state.servers.cluster import ClusterPool
from store.state.servers.redis_errors import is_denied

FIELD = "redis_shards"
"""Field of `ingest:settings` with the number of shards, where there are several."""
ONE, SEVERAL = Keys(), Keys(0, 2)
"""The keys of shard 0 where there is one shard, and where there are several, however many."""


def present(client: Client) -> list[int]:
    """Each number of shards with which ingest has counted into this Redis, ascending.

    `client`: of shard 0. Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("looking for state of another REDIS_SHARDS"):
        is_one = read_of(client, ONE, lambda: client.exists(ONE.settings))
        several = read_of(client, SEVERAL, lambda: client.hget(SEVERAL.settings, FIELD))
    try:
        return [1] * bool(is_one) + ([] if several is None else [int(several)])
    except ValueError:
        raise StoreCorrupt(
            f"{SEVERAL.settings} has {FIELD} {several!r}, which Eddyline did not write; find who "
            f"else writes into this Redis"
        ) from None


def check(client: Client) -> None:
    """Raises ConfigurationError when Redis has state of another REDIS_SHARDS than `client`'s.

    `client`: of shard 0. Raises StoreUnavailable, StoreCorrupt.
    """
    shards = keys.of(client).shards
    if others := [number for number in present(client) if number != shards]:
        former = " and ".join(map(str, others))
        raise ConfigurationError(
            f"REDIS_SHARDS is {shards}, but this Redis has state of REDIS_SHARDS={former}. Set the "
            f"former number again, or stop every ingest and run `python -m streams rebuild "
            f"--wipe`, which deletes that state and computes it again with REDIS_SHARDS={shards}"
        )


def read_of(client: Client, names: Keys, read: Callable[[], Any]) -> Any:
    """The reply to a command about keys of `names`, which is ONE or SEVERAL.

    None for keys that are not those of `client` where they cannot exist, in a cluster, or where the
    ACL user may not read them: its patterns name the keys of one number of shards.
    """
    is_own = names.prefix == keys.of(client).prefix
    if names is ONE and isinstance(client.connection_pool, ClusterPool):
        return None
    try:
        return read()
    except redis.ResponseError as error:
        if is_own or not is_denied(error):
            raise
        return None
