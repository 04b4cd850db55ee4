"""The open connections of a server: how many in all and by address, and which one is closed first.

Checks their deadlines.
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
    from api.server.lifecycle import ConnectionLifecycle

_log = structlog.get_logger(__name__)
CHECK_S = 0.25
"""Seconds between two checks of every connection's deadline.

One pass over 1,000 connections takes some 0.3 ms.
"""
LINGERING = 64
"""Refused connections at most that stay open until their client has read the answer; any more are
closed at once.
"""
LOG_S = 10.0
"""Seconds between two log lines about one limit, however often it is reached."""


class Connections:
    """The open connections of one server. Belongs to one event loop.

    At API_MAX_CONNECTIONS the connection that has been idle longest is closed to make room for the
    new one, so idle and half-sent connections cannot keep others out. A new connection is refused
    only when every connection is being answered.
    """

    def __init__(self, settings: Settings, metrics: Metrics, most: int) -> None:
        """`most`: open connections at once, API_MAX_CONNECTIONS or what the process may open."""
        self.settings = settings
        self._metrics = metrics
        self._most, self._most_by_address = most, settings.api_max_connections_per_address
        self._open: dict[ConnectionLifecycle, str] = {}
        self._by_address: Counter[str] = Counter()
        # longest idle first
        self._idle: dict[ConnectionLifecycle, None] = {}
        self._closing: set[ConnectionLifecycle] = set()
        self._logged: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def admit(self, connection: ConnectionLifecycle, address: str) -> ApiError | None:
        """Add a new connection. Returns the error to answer when there is no room for it."""
        if self._most_by_address and self._by_address[address] >= self._most_by_address:
            return ApiError(
                429,
                "too_many_connections",
                "too many connections from this address (API_MAX_CONNECTIONS_PER_ADDRESS)",
                _RETRY,
            )
        if len(self._open) >= self._most:
            if not self._idle:
                return ApiError(
                    503,
                    "too_many_connections",
                    "every connection of this server is in use (API_MAX_CONNECTIONS)",
                    _RETRY,
                )
            self.count_refusal("connections_in_all")
            next(iter(self._idle)).close_for_another()
        self._open[connection] = address
        self._by_address[address] += 1
        self._metrics.connections.set(len(self._open))
        self.mark_idle(connection)
        return None

    def mark_idle(self, connection: ConnectionLifecycle) -> None:
        """Nothing of `connection` is being answered: from now on it may be closed for another."""
        self._idle.pop(connection, None)
        if connection in self._open:
            self._idle[connection] = None

    def mark_busy(self, connection: ConnectionLifecycle) -> None:
        """A request of `connection` is being answered."""
        self._idle.pop(connection, None)

    def remove(self, connection: ConnectionLifecycle) -> None:
        """Remove a connection that serves no more requests.

        Its deadline is still checked, until its socket is closed.
        """
        self._idle.pop(connection, None)
        self._closing.add(connection)
        address = self._open.pop(connection, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            self._metrics.connections.set(len(self._open))

    def forget(self, connection: ConnectionLifecycle) -> None:
        """Forget a connection whose socket is closed."""
        self.remove(connection)
        self._closing.discard(connection)

    def may_linger(self) -> bool:
        """Whether one more refused connection may stay open until its answer is read."""
        return len(self._closing) < LINGERING

    def count_refusal(self, limit: str) -> None:
        """Count one refusal by the limit of that name; logs it at most every LOG_S."""
        self._metrics.count_refusal(limit)
        self._unlogged[limit] += 1
        now = time.monotonic()
        if now - self._logged.get(limit, -LOG_S) >= LOG_S:
            _log.warning(
                "limit_reached",
                limit=limit,
                count=self._unlogged.pop(limit),
                connections=len(self._open),
            )
            self._logged[limit] = now

    async def check_deadlines(self) -> None:
        """Close what is overdue, every CHECK_S, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_S)
            now = loop.time()
            for connection in [*self._open, *self._closing]:
                try:
                    connection.check_deadline(now)
                except Exception:  # noqa: BLE001 - one connection's failure must not end the checks of all others
                    _log.exception("connection_check_failed")
                    connection.transport.abort()


_RETRY = {"retry-after": "1"}
