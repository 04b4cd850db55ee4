"""Callbacks for librdkafka's events: one log line when all brokers are away and one when a broker
is back.

A client calls `error` for each connection that fails and `statistics` every STATISTICS_MS, from the
thread that polls it. librdkafka has no event for a connection that works again, so the brokers'
states in the statistics show it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError

from store.outage import KAFKA

_log = structlog.get_logger(__name__)

STATISTICS_MS = 2_000
"""Milliseconds between two reports of the brokers' states: how late the end of an outage is
noticed.
"""

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
        """All brokers away: an outage begins.

        One connection that fails is a debug line, any other error a warning.
        """
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if not self._down:
                self._down = True
                KAFKA.begin(error.str(), "connecting to the brokers")
            return
        level = _log.debug if error.code() in _PER_CONNECTION else _log.warning
        level("kafka_client_error", code=error.name(), error=error.str())

    def statistics(self, text: str) -> None:
        """The outage ends when a client that lost all brokers has one again."""
        if self._down and any(
            broker.state == "UP" for broker in _decoder.decode(text).brokers.values()
        ):
            self._down = False
            KAFKA.end()


class _ClientLog:
    """librdkafka's own lines, as debug: what matters of them comes through `ClientEvents.error` and
    raised errors.
    """

    def log(self, level: int, message: str, *args: Any) -> None:
        _log.debug("kafka_client_line", level=level, line=message % args if args else message)
