"""The process `python -m streams archive`."""

from __future__ import annotations

import signal

import structlog

from core.process import cli, stop
from core.redaction import masked_url
from core.settings import Settings
from store import start
from streams.archiver.archiver import Archiver

_log = structlog.get_logger(__name__)


def run(settings: Settings, until_idle: bool = False, accept_gap: bool = False) -> int:
    """Archive until SIGTERM or SIGINT, or until idle; returns the number of rows archived."""
    archiver = Archiver(settings, accept_gap)

    def end(*_: object) -> None:
        archiver.stop()
        stop.limit(
            "Kafka or the archive's storage did not answer; the next archive process goes on at "
            "the positions in the file names"
        )

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    cli.serve_metrics(settings)
    start.announce(settings, "archive", settings.archive_group)
    archived = archiver.run(until_idle)
    _log.info("archive_stopped", rows=archived, archive=masked_url(settings.archive_url))
    return archived
