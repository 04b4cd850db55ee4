"""Settings of logs, metrics and traces."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class LogSettings(BaseModel, frozen=True):
    """What a process tells its operators."""

    log_level: str = Field(
        "info",
        pattern="(?i)^(debug|info|warning|error)$",
        description="debug, info, warning or error",
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto",
        description=(
            "text, json (one object a line) or auto: json for a process that runs until it is "
            "stopped, unless its stderr is a terminal; text otherwise"
        ),
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description=(
            "address on which a process without an HTTP server of its own serves /metrics"
        ),
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="port of /metrics; 0: none",
    )
    otel_exporter_otlp_endpoint: str = Field(
        "",
        description=(
            "URL of an OpenTelemetry collector (http://collector:4318) to which the API and ingest "
            "send traces by OTLP over HTTP; unset: no traces"
        ),
    )
