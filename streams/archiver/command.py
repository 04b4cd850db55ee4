"""The process `python -m streams archive`, and `archive compact`."""

from __future__ import annotations

import structlog

from core.process import cli, stop
from core.redaction import masked_url
from core.settings import Settings
from store import start
from store.archive.archive import Archive
from store.archive.compaction import Compaction, Options
from streams.archiver.archiver import Archiver

_log = structlog.get_logger(__name__)


def run(settings: Settings, until_idle: bool = False, accept_gap: bool = False) -> int:
    """Archive until SIGTERM or SIGINT, or until idle; returns the number of rows archived."""
    archiver = Archiver(settings, accept_gap)
    stop.on_signal(
        archiver.stop,
        "Kafka or the archive's storage did not answer; the next archive process goes on at the "
        "positions in the file names",
    )
    cli.serve_metrics(settings)
    start.announce(settings, "archive", settings.archive_group)
    archived = archiver.run(until_idle)
    _log.info("archive_stopped", rows=archived, archive=masked_url(settings.archive_url))
    return archived


def compact(settings: Settings, target_bytes: int, settle_s: float) -> str:
    """Merge the small files of the archive; returns what was done, for an operator.

    Raises ConfigurationError, ArchiveError.
    """
    archive, topic = Archive(settings.archive_url), settings.interactions_topic
    done = Compaction(archive, topic, Options(target_bytes, settle_s)).run()
    before, after = done.bytes_before / 1e6, done.bytes_after / 1e6
    left = f"; {done.left} stay until the next run" if done.left else ""
    return (
        f"{masked_url(settings.archive_url)}: merged {done.merged} files of {topic} into "
        f"{done.into} ({before:,.1f} MB became {after:,.1f} MB), removed {done.removed} "
        f"replaced files{left}"
    )
