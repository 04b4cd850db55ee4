"""The metrics of /metrics. Each app has its own registry, so two apps in a process do not clash."""

from __future__ import annotations

import time
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Buckets from the usual time of a read (a millisecond) to its limit (API_TIMEOUT_S)."""
_SWAP_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets around the time to load, verify and index a bundle: some tenths of a second at 10,000
items.
"""


class Metrics:
    """Counters and gauges of one app.

    The child of a label set is looked up once: `labels()` costs microseconds.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "eddyline_api_request_seconds",
            "time to answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._requests = Counter(
            "eddyline_api_requests_total",
            "answers",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._answers = Counter(
            "eddyline_api_recommendations_total",
            "personal answers by the engine that made them",
            ["method_used", "degraded"],
            registry=self.registry,
        )
        self._events = Counter(
            "eddyline_api_events_total",
            "events received by POST /api/events",
            ["outcome"],
            registry=self.registry,
        )
        self.up = Gauge(
            "eddyline_api_up", "1 while the part answers", ["part"], registry=self.registry
        )
        self.model = Gauge(
            "eddyline_api_model_loaded",
            "1 for the bundle that answers",
            ["version"],
            registry=self.registry,
        )
        self.catalogue_items = Gauge(
            "eddyline_api_catalogue_items",
            "items in the catalogue of this process",
            registry=self.registry,
        )
        self.refreshed = Gauge(
            "eddyline_api_refreshed_timestamp_seconds", "last look at Redis", registry=self.registry
        )
        self._vectors = Counter(
            "eddyline_api_vectors_total",
            (
                "stored ALS vectors by their state when a read uses them; a vector that is not "
                "fresh is folded in by the read"
            ),
            ["state"],
            registry=self.registry,
        )
        self._after = Histogram(
            "eddyline_api_after_seconds",
            "how long reads with `after` waited for their event: arrived in time, or stale",
            ["outcome"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.swap_seconds = Histogram(
            "eddyline_api_swap_seconds",
            "from noticing a bundle to answering from it",
            buckets=_SWAP_SECONDS,
            registry=self.registry,
        )
        self._model_age = Gauge(
            "eddyline_api_model_age_seconds",
            "since the bundle that answers was made",
            registry=self.registry,
        )
        self.exposures_lost = Counter(
            "eddyline_api_exposures_lost_total",
            "answers of experiments that were not recorded: Redis was away too long",
            registry=self.registry,
        )
        self.connections = Gauge(
            "eddyline_api_connections",
            "open connections that serve requests",
            registry=self.registry,
        )
        self._refused = Counter(
            "eddyline_api_refused_total",
            (
                "connections and requests that a limit refused or closed: docs/security.md "
                "names the limits"
            ),
            ["limit"],
            registry=self.registry,
        )
        self._bound_vectors: dict[str, Counter] = {}
        self._bound_answers: dict[tuple[str, bool], Counter] = {}
        self._bound_requests: dict[tuple[str, str, int], tuple[Histogram, Counter]] = {}

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request.

        `route` is the path's template, so that ids do not become labels.
        """
        key = (method, route, status)
        bound = self._bound_requests.get(key)
        if bound is None:
            bound = self._bound_requests[key] = (
                self._seconds.labels(route),
                self._requests.labels(method, route, str(status)),
            )
        bound[0].observe(seconds)
        bound[1].inc()

    def count_answer(self, method_used: str, degraded: bool) -> None:
        """One personal answer."""
        key = (method_used, degraded)
        bound = self._bound_answers.get(key)
        if bound is None:
            bound = self._bound_answers[key] = self._answers.labels(
                method_used, str(degraded).lower()
            )
        bound.inc()

    def count_vector(self, state: str) -> None:
        """One user's stored vector: `fresh`, `stale`, `missing` or of an `other_model`."""
        bound = self._bound_vectors.get(state)
        if bound is None:
            bound = self._bound_vectors[state] = self._vectors.labels(state)
        bound.inc()

    def observe_wait(self, arrived: bool, seconds: float) -> None:
        """One read that waited for an event."""
        self._after.labels("arrived" if arrived else "stale").observe(seconds)

    def set_live_model(self, version: str | None, created: str) -> None:
        """The bundle that answers from now on; `created` in ISO 8601, empty if unknown."""
        self.model.clear()
        self.model.labels(version).set(1)
        if created:
            created_at = datetime.fromisoformat(created).timestamp()
            self._model_age.set_function(lambda: time.time() - created_at)

    def count_refusal(self, limit: str) -> None:
        """One connection or request that the limit of this name refused or closed."""
        self._refused.labels(limit).inc()

    def count_events(self, outcome: str, count: int) -> None:
        """`count` events `accepted`, `invalid` or `unavailable`."""
        if count:
            self._events.labels(outcome).inc(count)

    def render(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self.registry)
