"""Registers running ingest processes in Redis.

Each process renews an entry, which expires soon after the process dies.
Ingest writes its entry and then checks for a rebuild; a rebuild acquires its lease and then checks
for ingest. So at least one of the two sees the other.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from typing import Any, NamedTuple

from core.errors import StoreError
from core.use_cases import UseCases
from store.state import keys
from store.state.connection import Client, named_errors

EXPIRY_S = 15
"""Seconds until an entry expires: three renewals of ingest.

A rebuild waits that long for a process that was killed.
"""
REBUILD_LEASE = "ingest-rebuild"
"""Name of the lease of a rebuild."""


class Accepted(NamedTuple):
    """The names that ingest knows; any other makes a dead letter."""

    event_types: frozenset[str]
    use_cases: frozenset[str]


class Running:
    """The entry of this process. The client is that of shard 0, here and in the functions below."""

    def __init__(self, client: Client) -> None:
        self._client, self._keys = client, keys.of(client)
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def renew(self) -> None:
        """Register this process for EXPIRY_S more seconds. Raises StoreUnavailable."""
        with named_errors("registering this process"):
            now = _now(self._client)
            pipe = self._client.pipeline(transaction=False)
            pipe.zremrangebyscore(self._keys.running, "-inf", f"({now}")
            pipe.zadd(self._keys.running, {self._name: now + EXPIRY_S})
            pipe.execute()

    def end(self) -> None:
        """Remove the entry. Raises StoreUnavailable."""
        with named_errors("removing the entry of this process"):
            self._client.zrem(self._keys.running, self._name)

    def check_rebuild(self) -> None:
        """Raises StoreError while a rebuild runs."""
        with named_errors("checking for a rebuild"):
            holder = self._client.get(self._keys.lease(REBUILD_LEASE))
        if isinstance(holder, bytes):
            raise StoreError(
                f"a rebuild of Redis runs at {holder.decode(errors='replace')}: start ingest "
                f"when it has ended"
            )


def names(client: Client) -> list[str]:
    """The ingest processes that run, or were killed less than EXPIRY_S ago: `host:pid:...`.

    Raises StoreUnavailable.
    """
    with named_errors("reading the running ingest processes"):
        entries: list[Any] = client.zrangebyscore(keys.of(client).running, _now(client), "+inf")
    return [entry.decode(errors="replace") for entry in entries]


def note_accepted(client: Client, use_cases: UseCases) -> None:
    """Write the names that this ingest process knows. Raises StoreUnavailable."""
    names_by_field = {"event_types": use_cases.event_types, "use_cases": use_cases.by_name}
    with named_errors("writing the names that ingest knows"):
        client.hset(
            keys.of(client).settings,
            mapping={field: " ".join(known) for field, known in names_by_field.items()},
        )


def accepted(client: Client) -> Accepted | None:
    """The names that the ingest which started last knows; None where none has noted them.

    Raises StoreUnavailable.
    """
    with named_errors("reading the names that ingest knows"):
        values: Any = client.hmget(keys.of(client).settings, "event_types", "use_cases")
    if values[0] is None or values[1] is None:
        return None
    return Accepted(*(frozenset(value.decode().split()) for value in values))


def wait_until_none(client: Client, timeout_s: float = EXPIRY_S + 1.0) -> None:
    """Wait for entries of killed processes to expire.

    Raises StoreError naming the processes that still run after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while running := names(client):
        if time.monotonic() > deadline:
            raise StoreError(
                f"ingest runs ({', '.join(running)}): stop every ingest, then run this again. "
                f"Nothing was changed"
            )
        time.sleep(0.2)


def _now(client: Client) -> int:
    """Seconds since 1970 by the clock of Redis, which is the same for all processes."""
    seconds: int = client.time()[0]
    return seconds
