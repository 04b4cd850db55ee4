"""Says when a training worker makes the first bundle without a request (`worker --first`)."""

from __future__ import annotations

import math
import time
from datetime import datetime

import structlog

from core.errors import ArchiveError, ModelError
from core.redaction import masked_url
from core.settings import Settings
from models.registry import Registry
from store.archive.archive import Archive
from training.job.context import Options

POLL_S = 5.0
"""Seconds between two looks for events: an archive writes a file every few seconds."""
RETRY_S, SAME_EVENTS_S = 60.0, 600.0
"""Seconds between two tries, and between two tries with the same events."""

_log = structlog.get_logger(__name__)


class FirstBundle:
    """While no bundle is live, a retrain is due as soon as there are events.

    Events come from the archive, or from the file that `options` name.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        self._settings, self._options = settings, options
        self._archive = Archive(settings.archive_url) if options.events is None else None
        self._next_look, self._waits = -math.inf, False
        self._positions: dict[int, int] = {}
        self._tried, self._tried_at = self._positions, -math.inf

    def due(self) -> bool:
        """Whether to retrain now; says once in the log that it waits for events."""
        now = time.monotonic()
        if now < self._next_look or not math.isnan(model_age(self._settings)):
            return False
        self._next_look = now + POLL_S
        if self._archive is not None:
            try:
                positions = self._archive.positions(self._settings.interactions_topic)
            except ArchiveError as error:
                _log.warning("archive_not_readable", error=str(error))
                self._next_look = now + RETRY_S
                return False
            if not positions and not self._waits:
                _log.info("waiting_for_events", archive=masked_url(self._settings.archive_url))
                self._waits = True
            same = positions == self._tried and now - self._tried_at < SAME_EVENTS_S
            if same or not positions:
                return False
            self._positions = positions
        self._next_look = now + RETRY_S
        return True

    def tried(self) -> None:
        """A retrain that was due has ended; only further events, or time, make another one due."""
        self._tried, self._tried_at = self._positions, time.monotonic()


def model_age(settings: Settings) -> float:
    """Seconds since the live bundle was made; NaN when there is none or it cannot be read."""
    registry = Registry(settings.models_path)
    try:
        live = registry.current()
        created = registry.manifest(live).created if live is not None else None
    except (ModelError, OSError):
        return math.nan
    return time.time() - datetime.fromisoformat(created).timestamp() if created else math.nan
