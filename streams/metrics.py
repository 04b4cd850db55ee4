"""What ingest and archive count, for Prometheus."""

from __future__ import annotations

import prometheus_client
from prometheus_client import Counter, Gauge

from core.errors import ConfigurationError
from core.settings import Settings

events = Counter("eddyline_ingest_events", "Events handed on to be counted")
duplicates = Counter("eddyline_ingest_duplicates", "Events whose event_id was seen within the window")
dead_letters = Counter("eddyline_ingest_dead_letters", "Messages that are no valid event", ["code"])
retries = Counter("eddyline_ingest_retries", "Batches that went back to what Redis says", ["cause"])
lag_seconds = Gauge("eddyline_ingest_lag_seconds", "Age of the latest event taken", ["topic", "partition"])


def serve(settings: Settings) -> None:
    """Serve /metrics at METRICS_HOST:METRICS_PORT, unless the port is 0. Raises ConfigurationError when the port is taken."""
    if settings.metrics_port:
        try:
            prometheus_client.start_http_server(settings.metrics_port, addr=settings.metrics_host)
        except OSError as error:
            text = f"METRICS_PORT={settings.metrics_port} cannot be served: {error.strerror}; give each process its own"
            raise ConfigurationError(text) from None
