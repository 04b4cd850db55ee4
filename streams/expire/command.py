"""Removes from Redis what is too old to matter: `streams expire`, to be run by a schedule.

1. Acquire the lease `expire`: one such process at a time, and none beside a rebuild.
2. Remove the items of each popularity whose weight is below POPULARITY_MIN_WEIGHT.
3. Let idle users leave, and restore those who returned (`users`), in this order: Redis may be full.
4. Remove the deletions that are older than every record of the log and the archive
   (`streams.ingest.deletions.out_of_reach`).

Each step is many short transactions, each complete in itself. So this process may be killed at any
moment, and the next run continues.
"""

from __future__ import annotations

import time

import structlog

from core.settings import Settings
from store import start
from store.state import connection, keys, shard_numbers, wipe
from store.state.entities import popularity
from store.state.lease import EXPIRY_LEASE, Lease
from store.state.shards import Shards
from streams.expire import users
from streams.ingest.deletions.out_of_reach import drop_out_of_reach

_log = structlog.get_logger(__name__)

_LEASE_S = 30.0


def run(settings: Settings) -> None:
    """Run once.

    Raises LeaseTaken: another one runs, or a rebuild. Raises StoreError, LogUnavailable: the next
    run continues.
    """
    start.announce(settings, "expire")
    with Shards(settings) as shards:
        for client in shards:
            connection.check_server(client)
        with Lease(shards.first, EXPIRY_LEASE, _LEASE_S):
            shard_numbers.check(shards.first)
            wipe.check(shards.first)
            names = (*settings.use_cases.by_name, keys.POPULAR_UNLABELLED)
            now = time.time()
            items = sum(popularity.remove_below(client, settings, names, now) for client in shards)
            moves = users.move(settings, shards)
            deletions = drop_out_of_reach(settings, shards)
    _log.info(
        "expired",
        users_left=moves.left,
        users_restored=moves.restored,
        popularity_members=items,
        deletions=deletions,
    )
