"""Logs an outage of Kafka as two lines: a warning when it begins, and its length when it ends."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import confluent_kafka

_log = logging.getLogger("eddyline_client")
STATISTICS_MS = 2_000
"""Milliseconds between two reports of the brokers' states, which show the end of an outage."""

_MOST_REPEATS = 1_000
"""Errors that are remembered."""


class ConnectionLog:
    """The callbacks of librdkafka's client that concern its connections; `config` holds them.

    librdkafka repeats its errors while it retries: each one is logged once an outage, as debug.
    """

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._since: float | None = None  # time.monotonic()
        self._logged: set[str] = set()
        self.last_error = self.refusal = ""
        self.is_connecting = True
        """While it is true, the caller raises what is wrong, and no warning is logged."""

    def config(self) -> dict[str, Any]:
        """Entries of the client's configuration."""
        return {
            "error_cb": self.error,
            "stats_cb": self.statistics,
            "statistics.interval.ms": STATISTICS_MS,
            "logger": self,
        }

    def error(self, error: confluent_kafka.KafkaError) -> None:
        """Note the last error and a refusal; begin an outage when no broker is reachable."""
        name = error.name()
        # "1/1 brokers are down" must not hide the cause, which comes before it
        if name != "_ALL_BROKERS_DOWN" or not self.last_error:
            self.last_error = error.str()
        if name in ("_AUTHENTICATION", "_SSL"):
            self.refusal = error.str()
        self._log_once(f"kafka_error code={name} error={error.str()}")
        if name == "_ALL_BROKERS_DOWN" and self._since is None and not self.is_connecting:
            self._since = time.monotonic()
            _log.warning(
                "kafka_unavailable servers=%s: messages wait, and are sent when a broker answers",
                self._servers,
            )

    def statistics(self, text: str) -> None:
        """End the outage when a broker is connected."""
        if self._since is None and not self._logged:
            return
        if any(broker["state"] == "UP" for broker in json.loads(text)["brokers"].values()):
            self._logged.clear()
            if self._since is not None:
                seconds = time.monotonic() - self._since
                self._since = None
                # a warning, as its beginning: who sees that one waits for this one
                _log.warning("kafka_available servers=%s outage_s=%.1f", self._servers, seconds)

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Take a line of librdkafka's own log."""
        text = message % arguments if arguments else message
        self._log_once(f"kafka_client level={level} line={text}")

    def _log_once(self, line: str) -> None:
        """Log a line as debug, unless this outage has logged it; times in it do not count."""
        key = line.partition(" (after ")[0]
        if len(self._logged) > _MOST_REPEATS:
            self._logged.clear()
        if key not in self._logged:
            self._logged.add(key)
            _log.debug(line)
