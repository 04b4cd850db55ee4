"""Logs the start and the end of an outage of Kafka, from the callbacks of librdkafka.

A client calls `error` for each connection that fails and `statistics` every STATISTICS_MS, from the
thread that polls it. librdkafka has no callback for a connection that works again, so the end of an
outage is read from the brokers' states in the statistics. Until then it repeats its errors several
times a second: each is logged once.
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
IDLE_POLL_S = 1.0
"""Seconds between two polls of a client that has nothing to send. What it reports waits for a poll:
without one, reports accumulate, and an outage that is over begins at the next message.
"""

_MOST_REPEATS = 1_000
"""Errors of one client that are remembered: more would be memory for errors that never repeat."""
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
        self._repeats = _Repeats()

    def config(self) -> dict[str, Any]:
        """Entries of the client's configuration."""
        return {
            "error_cb": self.error,
            "stats_cb": self.statistics,
            "statistics.interval.ms": STATISTICS_MS,
            "logger": _ClientLog(self._repeats),
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
        if not self._repeats.is_new(error.str()):
            return
        level = _log.debug if refused or error.code() in _PER_CONNECTION else _log.warning
        level("kafka_client_error", code=error.name(), error=error.str())

    def statistics(self, text: str) -> None:
        """End the outage when a client that lost all brokers is connected to one."""
        if not self._down and self._repeats.is_empty:
            return
        if any(broker.state == "UP" for broker in _decoder.decode(text).brokers.values()):
            self._repeats.clear()
            if self._down:
                self._down = False
                KAFKA.end()


class _Repeats:
    """The errors that one client has logged since it was connected."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether there was none."""
        return not self._texts

    def is_new(self, text: str) -> bool:
        """Whether the error was not logged yet; the milliseconds at its end do not count."""
        if len(self._texts) > _MOST_REPEATS:
            self._texts.clear()
        before, key = len(self._texts), text.partition(" (after ")[0]
        self._texts.add(key)
        return len(self._texts) > before

    def clear(self) -> None:
        """Forget them: the next ones are of another outage."""
        self._texts.clear()


class _ClientLog:
    """Logs librdkafka's own lines with the level debug.

    Important errors reach `ClientEvents.error` or are raised.
    """

    def __init__(self, repeats: _Repeats) -> None:
        self._repeats = repeats

    def log(self, level: int, message: str, *args: Any) -> None:
        line = message % args if args else message
        if self._repeats.is_new(line):
            _log.debug("kafka_client_line", level=level, line=line)
