"""One log line when a server goes away and one when it is back, however many calls fail in between.

A server that answers, but refuses, gets one more line for each code of its refusals.
"""

from __future__ import annotations

import re
import threading
import time

import structlog

from core.errors import LogUnavailable, StoreUnavailable

_log = structlog.get_logger(__name__)

_REFUSAL = re.compile(r"^Redis refused (?:.*? )?while [^:]*: ([A-Z]+)")


class Outage:
    """Whether a server is away. Thread-safe."""

    def __init__(self, server: str) -> None:
        """`server`: its name in the log's fields, such as `kafka`."""
        self._server = server
        self._lock = threading.Lock()
        self._since: float | None = None
        self._failures = 0
        self._codes: set[str] = set()

    def begin(self, error: str, what: str) -> None:
        """Note a failure of `what`; logs the first one of an outage, and of each code of refusal,
        as a warning, the others as debug.

        A server may time out first and only then say why it refuses.
        """
        match = _REFUSAL.match(error)
        with self._lock:
            is_new = self._since is None
            if self._since is None:
                self._since, self._failures, self._codes = time.monotonic(), 0, set()
            self._failures += 1
            if match is not None and match[1] not in self._codes:
                self._codes.add(match[1])
                is_new = True
        (_log.warning if is_new else _log.debug)(
            "server_unavailable", server=self._server, what=what, error=error
        )

    def end(self, at: float | None = None) -> None:
        """Note that the server answers; logs the length of the outage that ends with it, if there
        was one.

        `at`: time.monotonic() since which it answers; now unless given.
        """
        if self._since is None:  # read without the lock: every answered call comes by here
            return
        with self._lock:
            since, self._since = self._since, None
            failures = self._failures
        if since is not None:
            _log.info(
                "server_available",
                server=self._server,
                outage_s=round((at or time.monotonic()) - since, 1),
                failures=failures,
            )


KAFKA, REDIS = Outage("kafka"), Outage("redis")
"""Of this process: every client of it meets the same outage."""


def of(error: StoreUnavailable | LogUnavailable) -> Outage:
    """The outage that an error belongs to."""
    return REDIS if isinstance(error, StoreUnavailable) else KAFKA
