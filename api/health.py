"""Records which parts (Redis, Kafka, model, ...) fail, and so whether answers are degraded."""

from __future__ import annotations

import threading
import time

import structlog

from api.metrics import Metrics

_log = structlog.get_logger(__name__)
QUIET_S = 10.0
"""Seconds after the end of a failure in which the next one is not logged, unless it lasts."""


class _Failure:
    """What the log knows of a part that fails."""

    def __init__(self, began: float) -> None:
        self.began = began
        """time.monotonic()"""
        self.count = 0
        self.is_logged = False


class Health:
    """Failing parts with their cause.

    Any thread may write; every request reads, without a lock.
    """

    def __init__(self, metrics: Metrics, parts: tuple[str, ...]) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._causes: dict[str, str] = {}
        self._working: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self._ended: dict[str, float] = {}
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
        """Record that `part` fails. Its first cause is a warning, the next ones are debug."""
        now = time.monotonic()
        with self._lock:
            # replaced, never changed: readers take no lock
            self._causes = {**self._causes, part: cause}
            self._working.discard(part)
            failure = self._failures.setdefault(part, _Failure(now))
            failure.count += 1
            begins = not failure.is_logged and now - self._ended.get(part, -QUIET_S) >= QUIET_S
            failure.is_logged = failure.is_logged or begins
        self._metrics.up.labels(part).set(0)
        (_log.warning if begins else _log.debug)("part_failed", part=part, cause=cause)

    def mark_working(self, part: str) -> None:
        """Record that `part` works (again)."""
        if part in self._working:
            return
        with self._lock:
            cause, failure = self._causes.get(part), self._failures.pop(part, None)
            self._causes = {name: cause for name, cause in self._causes.items() if name != part}
            self._working.add(part)
            if failure is not None:
                self._ended[part] = time.monotonic()
        self._metrics.up.labels(part).set(1)
        if failure is not None and failure.is_logged:
            _log.info(
                "part_recovered",
                part=part,
                cause=cause,
                failures=failure.count,
                outage_s=round(time.monotonic() - failure.began, 1),
            )


class ShardHealth:
    """Which shards of Redis fail. While one does, the part `redis` fails.

    Any thread may write; every read of a user reads, without a lock.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._lock = threading.Lock()
        self._failing: frozenset[int] = frozenset()

    def fails(self, shard: int) -> bool:
        """Whether the shard failed when it was last used."""
        return shard in self._failing

    def mark_failed(self, shard: int, cause: str) -> None:
        """Record that a shard fails."""
        with self._lock:
            self._failing |= {shard}
            self._health.mark_failed("redis", cause)

    def mark_working(self, shard: int) -> None:
        """Record that a shard works (again)."""
        with self._lock:
            self._failing -= {shard}
            if not self._failing:
                self._health.mark_working("redis")
