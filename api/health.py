"""Records which parts (Redis, Kafka, model, ...) fail, and so whether answers are degraded."""

from __future__ import annotations

import threading
import time

import structlog

from api.metrics import Metrics

_log = structlog.get_logger(__name__)
QUIET_S = 10.0
"""Seconds between two log lines about one failing part, however often it fails."""


class Health:
    """Failing parts with their cause.

    Any thread may write; every request reads, without a lock.
    """

    def __init__(self, metrics: Metrics, parts: tuple[str, ...]) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._causes: dict[str, str] = {}
        self._working: set[str] = set()
        self._logged: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}
        for part in parts:
            metrics.up.labels(part).set(0)

    @property
    def degraded(self) -> bool:
        """Whether a part fails."""
        return bool(self._causes)

    @property
    def causes(self) -> dict[str, str]:
        """Part -> cause, of the parts that fail now."""
        return dict(self._causes)

    def failure(self, part: str) -> str | None:
        """Why `part` fails; None while it works or was not used yet."""
        return self._causes.get(part)

    def mark_failed(self, part: str, cause: str) -> None:
        """Record that `part` fails. Logs the cause, at most every QUIET_S for each part."""
        now = time.monotonic()
        with self._lock:
            # replaced, never changed: readers take no lock
            self._causes = {**self._causes, part: cause}
            self._working.discard(part)
            quiet = now - self._logged.get(part, -QUIET_S) < QUIET_S
            repeated = self._unlogged[part] = self._unlogged.get(part, 0) + 1
            if not quiet:
                self._logged[part], self._unlogged[part] = now, 0
        self._metrics.up.labels(part).set(0)
        if not quiet:
            _log.warning("part_failed", part=part, cause=cause, failures=repeated)

    def mark_working(self, part: str) -> None:
        """Record that `part` works (again)."""
        if part in self._working:
            return
        with self._lock:
            recovered = self._causes.get(part)
            self._causes = {name: cause for name, cause in self._causes.items() if name != part}
            self._working.add(part)
        self._metrics.up.labels(part).set(1)
        if recovered is not None:
            _log.info("part_recovered", part=part, cause=recovered)
