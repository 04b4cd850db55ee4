"""Which connections a server holds: how many in all and by address, which one is closed first, and
when one has been open in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from api.errors import ApiError
from api.metrics import Metrics
from core.settings import Settings

if TYPE_CHECKING:
    from api.server.protocol import LimitedProtocol

_log = structlog.get_logger(__name__)
CHECK_S = 0.25
"""Seconds between two checks of every connection's deadline.

One pass over 1,000 connections takes some 0.3 ms.
"""
LINGERING = 64
"""Most refused connections that are read on, so that their client can read the answer; any more are
closed at once.
"""
LOG_S = 10.0
"""Seconds between two log lines about one limit, however often it is reached."""


class Connections:
    """The open connections of one server. Belongs to one event loop.

    At API_MAX_CONNECTIONS the connection that has waited longest for a whole request head is closed
    in favour of the new one, so idle and half-sent connections cannot keep others out. Only when
    every connection is being answered is the new one refused.
    """

    def __init__(self, settings: Settings, metrics: Metrics, most: int) -> None:
        """`most`: connections held at once, API_MAX_CONNECTIONS or what the process may open."""
        self.settings = settings
        self._metrics = metrics
        self._most, self._most_by_address = most, settings.api_max_connections_per_address
        self._held: dict[LimitedProtocol, str] = {}
        self._by_address: Counter[str] = Counter()
        # by the time since when they wait, longest first
        self._waiting: dict[LimitedProtocol, None] = {}
        self._closing: set[LimitedProtocol] = set()
        self._logged: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def admit(self, connection: LimitedProtocol, address: str) -> ApiError | None:
        """Count a new connection in. Returns the error to answer when there is no room for it."""
        if self._most_by_address and self._by_address[address] >= self._most_by_address:
            return ApiError(
                429,
                "too_many_connections",
                "too many connections from this address (API_MAX_CONNECTIONS_PER_ADDRESS)",
                _RETRY,
            )
        if len(self._held) >= self._most:
            if not self._waiting:
                return ApiError(
                    503,
                    "too_many_connections",
                    "every connection of this server is in use (API_MAX_CONNECTIONS)",
                    _RETRY,
                )
            self.count("connections_in_all")
            next(iter(self._waiting)).close_for_another()
        self._held[connection] = address
        self._by_address[address] += 1
        self._metrics.connections.set(len(self._held))
        self.waits(connection)
        return None

    def waits(self, connection: LimitedProtocol) -> None:
        """Note that nothing of `connection` is being answered: from now on it may be closed in
        favour of another one.
        """
        self._waiting.pop(connection, None)
        if connection in self._held:
            self._waiting[connection] = None

    def works(self, connection: LimitedProtocol) -> None:
        """Note that a request of `connection` is being answered."""
        self._waiting.pop(connection, None)

    def leaves(self, connection: LimitedProtocol) -> None:
        """Count a connection out that serves no more requests; it is checked until its socket is
        closed.
        """
        self._waiting.pop(connection, None)
        self._closing.add(connection)
        address = self._held.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            self._metrics.connections.set(len(self._held))

    def lost(self, connection: LimitedProtocol) -> None:
        """Forget a connection whose socket is closed."""
        self.leaves(connection)
        self._closing.discard(connection)

    def may_linger(self) -> bool:
        """Whether one more refused connection may be read on until its client has seen the
        answer.
        """
        return len(self._closing) < LINGERING

    def count(self, limit: str) -> None:
        """Count one refusal by the limit of that name; logs it at most every LOG_S."""
        self._metrics.refused(limit)
        self._unlogged[limit] += 1
        now = time.monotonic()
        if now - self._logged.get(limit, -LOG_S) >= LOG_S:
            _log.warning(
                "limit_reached",
                limit=limit,
                count=self._unlogged.pop(limit),
                connections=len(self._held),
            )
            self._logged[limit] = now

    async def check_deadlines(self) -> None:
        """Close what is overdue, every CHECK_S, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_S)
            now = loop.time()
            for connection in [*self._held, *self._closing]:
                try:
                    connection.check_deadline(now)
                except Exception:  # noqa: BLE001 - one connection's failure must not end the checks of all others
                    _log.exception("connection_check_failed")
                    connection.transport.abort()


_RETRY = {"retry-after": "1"}
