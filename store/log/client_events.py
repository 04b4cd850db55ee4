"""Logs the start and the end of an outage of Kafka, from the callbacks of librdkafka.

A client calls `error` for each connection that fails and `statistics` every STATISTICS_MS, from the
thread that polls it. librdkafka has no callback for a connection that works again, so the end of an
outage is read from the brokers' states in the statistics.
"""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError

from store.log.access.refusals import REFUSALS
from store.outage import KAFKA

_log = structlog.get_logger(__name__)

STATISTICS_MS = 2_000
"""Milliseconds between two reports of the brokers' states, which show the end of an outage."""

_PER_CONNECTION = (KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT)
"""Errors of one connection, which the client retries by itself."""


class _Broker(msgspec.Struct):
    state: str


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]


_decoder = msgspec.json.Decoder(_Statistics)


class ClientEvents:
    """The callbacks of one client; `config` holds them."""

    def __init__(self) -> None:
        self._down = False

    def config(self) -> dict[str, Any]:
        """Entries of the client's configuration."""
        return {
            "error_cb": self.error,
            "stats_cb": self.statistics,
            "statistics.interval.ms": STATISTICS_MS,
            "logger": _ClientLog(),
        }

    def error(self, error: KafkaError) -> None:
        """Begin an outage when no broker is reachable; log any other error.

        The error of a single connection has the level debug, because the client retries it.
        """
        refused = REFUSALS.note(error)  # the call that fails by it raises it
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if not self._down:
                self._down = True
                KAFKA.begin(error.str(), "connecting to the brokers")
            return
        level = _log.debug if refused or error.code() in _PER_CONNECTION else _log.warning
        level("kafka_client_error", code=error.name(), error=error.str())

    def statistics(self, text: str) -> None:
        """End the outage when a client that lost all brokers is connected to one."""
        if self._down and any(
            broker.state == "UP" for broker in _decoder.decode(text).brokers.values()
        ):
            self._down = False
            KAFKA.end()


class _ClientLog:
    """Logs librdkafka's own lines with the level debug.

    Important errors reach `ClientEvents.error` or are raised.
    """

    def log(self, level: int, message: str, *args: Any) -> None:
        _log.debug("kafka_client_line", level=level, line=message % args if args else message)
