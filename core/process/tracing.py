"""Traces by OpenTelemetry, sent to a collector by OTLP over HTTP; off unless the setting names one.

Nothing of OpenTelemetry's SDK is imported while it is off.
"""

from __future__ import annotations

from typing import Any

from core.settings.logs import LogSettings

_provider: Any = None


def start(settings: LogSettings, service: str) -> None:
    """Send the spans of this process as those of `service`, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

    It starts a thread, so a process that forks calls it afterwards.
    """
    global _provider  # noqa: PLW0603 - OpenTelemetry's own provider is one of the process, too
    if not settings.otel_exporter_otlp_endpoint:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.otel_exporter_otlp_endpoint.rstrip("/")
    _provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    _provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"))
    )
    trace.set_tracer_provider(_provider)


def is_on() -> bool:
    """Whether this process sends spans."""
    return _provider is not None


def close() -> None:
    """Send the spans that wait."""
    if _provider is not None:
        _provider.shutdown()


def headers() -> list[tuple[str, str | bytes | None]] | None:
    """The headers (W3C traceparent) by which a message carries the current span; None while off."""
    if _provider is None:
        return None
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return [(name, value.encode()) for name, value in carrier.items()]
