"""Logs an outage of a server once: one line when it begins and one when it ends.

The number of calls that fail in between does not matter. A server that answers with errors gets one
more line for each error code.
"""

from __future__ import annotations

import math
import re
import threading
import time

import structlog

from core.errors import LogUnavailable, StoreUnavailable

_log = structlog.get_logger(__name__)

_REFUSAL = re.compile(r"^Redis refused (?:.*? )?while [^:]*: ([A-Z]+)")


SETTLE_S = 1.0
"""Seconds after the end of an outage in which a failure does not begin another one: it may be the
late report of a call that began before.
"""


class Outage:
    """The state of one server: available or not. Thread-safe."""

    def __init__(self, server: str) -> None:
        """`server`: its name in the log's fields, such as `kafka`."""
        self._server = server
        self._lock = threading.Lock()
        self._since: float | None = None
        self._failures = 0
        self._codes: set[str] = set()
        self._ended = -math.inf

    def begin(self, error: str, what: str) -> None:
        """Note that `what` failed.

        The first failure of an outage, and the first of each error code, is logged as a warning,
        the others as debug. A server may time out first and answer with an error code later.
        """
        match = _REFUSAL.match(error)
        now = time.monotonic()
        with self._lock:
            is_new = self._since is None and now - self._ended >= SETTLE_S
            if is_new:
                self._since, self._failures, self._codes = now, 0, set()
            self._failures += 1
            if self._since is not None and match is not None and match[1] not in self._codes:
                self._codes.add(match[1])
                is_new = True
        (_log.warning if is_new else _log.debug)(
            "server_unavailable", server=self._server, what=what, error=error
        )

    def end(self, at: float | None = None) -> None:
        """Note that the server answers; logs the length of the outage that ends, if there was one.

        `at`: time.monotonic() of the answer (default: now).
        """
        if self._since is None:  # without the lock, because every successful call runs this line
            return
        with self._lock:
            since, self._since = self._since, None
            self._ended = time.monotonic()
            failures = self._failures
        if since is not None:
            _log.info(
                "server_available",
                server=self._server,
                outage_s=round((at or time.monotonic()) - since, 1),
                failures=failures,
            )


KAFKA, REDIS = Outage("kafka"), Outage("redis")
"""Outages as this process sees them; all its clients share them."""


def of(error: StoreUnavailable | LogUnavailable) -> Outage:
    """The outage that an error belongs to."""
    return REDIS if isinstance(error, StoreUnavailable) else KAFKA
