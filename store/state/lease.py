"""Grants leases in Redis: one holder at a time across machines.

The lease of a holder that dies expires.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from types import TracebackType
from typing import Self

import structlog

from core.errors import LeaseLost, LeaseTaken, StoreError
from store.state import keys
from store.state.connection import Client, named_errors

_log = structlog.get_logger(__name__)

EXPIRY_LEASE = "expire"
"""Name of the lease of `streams expire`; a rebuild holds it, too."""
_ACQUIRE = """#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
"""
"""A script, because Redis refuses SET when it is full, and what frees memory needs a lease, too."""
_RENEW = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], "
    "ARGV[2]) else return 0 end"
)
_RELEASE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else "
    "return 0 end"
)


class Lease:
    """A lease for the time of a `with` block, renewed every third of its `seconds`.

    `with Lease(client, "retrain", 60) as lease:` raises LeaseTaken, which names the holder, or
    StoreUnavailable. Call `lease.check()` before a step that must not run twice: it raises
    LeaseLost when another process may have the lease.
    """

    def __init__(self, client: Client, name: str, seconds: float) -> None:
        """`client`: of shard 0."""
        self._client = client
        self._name, self._key = name, keys.of(client).lease(name)
        self._milliseconds = int(seconds * 1000)
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name=f"lease-{name}", daemon=True)

    def __enter__(self) -> Self:
        with named_errors(f"acquiring the lease {self._name}"):
            acquired = self._client.eval(
                _ACQUIRE, 1, self._key, self.holder, str(self._milliseconds)
            )
            if not acquired:
                other = self._client.get(self._key)
                left = self._client.pttl(self._key)
                name = other.decode() if isinstance(other, bytes) else "an unknown process"
                raise LeaseTaken(
                    f"{self._name} is already running at {name}; if that process is dead, "
                    f"its lease ends in {max(0, left) / 1000:.0f} s"
                )
        self._renewer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._renewer.join()
        with named_errors(f"releasing the lease {self._name}"):
            self._client.eval(_RELEASE, 1, self._key, self.holder)

    def check(self) -> None:
        """Renew the lease. Raises LeaseLost, unless this process holds it, or StoreUnavailable."""
        with named_errors(f"checking the lease {self._name}"):
            if not self._client.eval(_RENEW, 1, self._key, self.holder, str(self._milliseconds)):
                raise LeaseLost(
                    f"the lease {self._name} expired, and another process may hold it; start again"
                )

    def _renew(self) -> None:
        while not self._stop.wait(self._milliseconds / 3000):
            try:
                self.check()
            # only logged here: the holder fails at its next check()
            except StoreError as error:
                _log.warning("lease_not_renewed", lease=self._name, error=str(error))
