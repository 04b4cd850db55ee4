"""Configures structured logs: text for people, or JSON lines."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from core.redaction import redact


def configure(level: str = "info", text: bool = False) -> None:
    """Send logs of structlog and `logging` to stderr, from `level` up, with secrets masked.

    `text`: as lines for people, with colours on a terminal; otherwise as JSON lines.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if text
        else structlog.processors.JSONRenderer()
    )

    def last(logger: Any, method: str, event: structlog.types.EventDict) -> str:
        """Mask secrets before the rendering, which may escape them, and after it.

        The second mask covers tracebacks, which the renderer adds.
        """
        masked = {name: _redacted(value) for name, value in event.items()}
        return redact(str(renderer(logger, method, masked)))

    formats: list[structlog.types.Processor] = (
        [] if text else [structlog.processors.format_exc_info]
    )
    structlog.configure(
        processors=[*shared, *formats, last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *formats, last],
        )
    )
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(field) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(entry) for entry in value]
    return value
