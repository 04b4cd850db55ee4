"""What the metrics say of the last minute: answers a second, their times, who made them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import Metric

from api.schemas.live import Answers

WINDOW_S = 60.0
RATE_S = 5.0
"""Seconds over which answers a second are counted: short enough to see a change."""
_REQUESTS, _PERSONAL, _WAITS = (
    "eddyline_api_request_seconds",
    "eddyline_api_recommendations",
    "eddyline_api_after_seconds",
)
_ROUTES = ("/api/recommendations/", "/api/popular", "/api/items/{item_id}/similar")
"""Beginnings of the routes that answer recommendations."""

NO_ANSWERS = Answers(
    per_second=None,
    p50_ms=None,
    p99_ms=None,
    by_engine={},
    degraded_share=None,
    stale_share=None,
    seconds=0.0,
)


class _Counts(NamedTuple):
    """Counters at one moment. `buckets`: answers by their longest time in seconds, cumulative."""

    at: float
    buckets: Mapping[float, float]
    engines: Mapping[str, float]
    degraded: float
    waits: Mapping[str, float]

    @property
    def answers(self) -> float:
        return self.buckets.get(float("inf"), 0.0)


class Traffic:
    """Compares the counters with those of up to WINDOW_S ago."""

    def __init__(self) -> None:
        self._past: deque[_Counts] = deque()

    def forget(self) -> None:
        """Begin again: nobody has looked for a while."""
        self._past.clear()

    def add(self, families: Iterable[Metric]) -> Answers:
        """The numbers up to now. `families`: the metrics of all processes of this server."""
        now = _read(families)
        # a process that was replaced counts from 0 again
        if self._past and now.answers < self._past[-1].answers:
            self._past.clear()
        while self._past and now.at - self._past[0].at > WINDOW_S:
            self._past.popleft()
        first = self._past[0] if self._past else now
        recent = next((past for past in self._past if now.at - past.at <= RATE_S), first)
        self._past.append(now)
        engines = {
            name: int(count - first.engines.get(name, 0.0)) for name, count in now.engines.items()
        }
        waits = {name: count - first.waits.get(name, 0.0) for name, count in now.waits.items()}
        buckets = {
            bound: count - first.buckets.get(bound, 0.0) for bound, count in now.buckets.items()
        }
        return Answers(
            per_second=_share(now.answers - recent.answers, now.at - recent.at),
            p50_ms=_quantile(buckets, 0.5),
            p99_ms=_quantile(buckets, 0.99),
            by_engine={name: count for name, count in engines.items() if count > 0},
            degraded_share=_share(now.degraded - first.degraded, sum(engines.values())),
            stale_share=_share(waits.get("stale", 0.0), sum(waits.values())),
            seconds=round(now.at - first.at, 1),
        )


def _read(families: Iterable[Metric]) -> _Counts:
    buckets: Counter[float] = Counter()
    engines: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    degraded = 0.0
    for family in families:
        if family.name not in (_REQUESTS, _PERSONAL, _WAITS):
            continue
        for sample in family.samples:
            labels = sample.labels
            if sample.name == _REQUESTS + "_bucket" and labels["route"].startswith(_ROUTES):
                buckets[float(labels["le"])] += sample.value  # type: ignore[assignment]
            elif sample.name == _PERSONAL + "_total":
                engines[labels["method_used"]] += sample.value  # type: ignore[assignment]
                degraded += sample.value if labels["degraded"] == "true" else 0.0
            elif sample.name == _WAITS + "_count":
                waits[labels["outcome"]] += sample.value  # type: ignore[assignment]
    return _Counts(time.monotonic(), buckets, engines, degraded, waits)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Milliseconds, by the bucket in which the quantile falls, evenly filled; None without answers.

    Above the last bound: that bound.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    lower = below = 0.0
    for bound in bounds:
        if buckets[bound] >= share * total:
            inside = buckets[bound] - below
            upper = lower if bound == float("inf") else bound
            return 1000 * (lower + (upper - lower) * (share * total - below) / inside)
        lower, below = bound, buckets[bound]
    return None
