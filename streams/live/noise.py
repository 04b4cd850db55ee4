"""Filters the log of Faust's Kafka client, which writes thirty lines a second while Kafka is away.

An outage then has one line at its start and one at its end.
"""

from __future__ import annotations

import logging
import time

import structlog

from store import outage

_log = structlog.get_logger(__name__)

LIBRARIES = ("faust", "mode", "aiokafka")
QUIET_S = 5.0
"""Seconds without a line after which the client counts as connected: while Kafka is away it logs
several failures a second.
"""
_CONNECTION = (
    "connect",
    "broker",
    "coordinator",
    "heartbeat",
    "metadata",
    "not ready",
    "timeout",
    "timed out",
)
"""Words of a line about a broker that does not answer."""


class ClientNoise(logging.Filter):
    """A filter of log handlers: lines about the connection become one outage of Kafka.

    Every other line passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: float | None = None  # time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.name.partition(".")[0] not in LIBRARIES or record.levelno < logging.WARNING:
            return True
        text = (
            f"{record.getMessage()} {record.exc_info[1]!r}"
            if record.exc_info
            else record.getMessage()
        )
        if not any(word in text.lower() for word in _CONNECTION):
            return True
        self._last = time.monotonic()
        outage.KAFKA.begin(
            record.getMessage().strip()[:300], f"the live worker's client ({record.name})"
        )
        return False

    def check(self) -> None:
        """End the outage if the client has logged no failure for QUIET_S. Call it regularly."""
        last = self._last
        if last is not None and time.monotonic() - last > QUIET_S:
            self._last = None
            outage.KAFKA.end(last)
