"""Reports the progress of a retrain.

It prints a line a step on stderr, writes `retrain:last` to Redis, and keeps the seconds by step for
the manifest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
import typer

from core.errors import Interrupted, StoreUnavailable
from store.state import retrains
from store.state.connection import Client

STEPS = ("snapshot", "dataset", "tune", "fit", "evaluate", "gate", "publish", "prune")
REPORT_EVERY_S = 1.0
"""Seconds between two progress reports within a step: each is one command to Redis."""

log = structlog.get_logger(__name__)


class Run:
    """The progress of one retrain.

    `step` and `progress` raise Interrupted once `stopped()` is true; any thread may call them.
    """

    def __init__(
        self,
        client: Client | None,
        holder: str,
        about: Mapping[str, str] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`holder`: of the lease; `about`: further fields of `retrain:last`, such as who requested
        the run.
        """
        self._client, self._holder, self._about, self._stopped = (
            client,
            holder,
            dict(about or {}),
            stopped,
        )
        self._started_at, self._started = datetime.now(UTC), time.monotonic()
        self.seconds: dict[str, float] = {}
        self.verdict: Mapping[str, Any] | None = None
        """The gate's, with the metrics of both bundles; every later record has it."""
        self._step, self._step_started, self._last_report = "", time.monotonic(), 0.0

    def step(self, name: str, text: str = "") -> None:
        """Begin the step `name`. Raises Interrupted."""
        if self._step:
            self.seconds[self._step] = round(time.monotonic() - self._step_started, 3)
        self.check()
        self._step, self._step_started = name, time.monotonic()
        self.record(retrains.RUNNING)
        typer.echo(f"{STEPS.index(name) + 1}/{len(STEPS)} {name} {text}".rstrip(), err=True)

    def progress(self, text: str) -> None:
        """Report how far the step is, at most every REPORT_EVERY_S. Raises Interrupted."""
        self.check()
        if time.monotonic() - self._last_report >= REPORT_EVERY_S:
            self.record(retrains.RUNNING, progress=text)

    def check(self) -> None:
        """Raise Interrupted once `stopped()` is true."""
        if self._stopped():
            raise Interrupted(
                f"the retrain was stopped in step {self._step or STEPS[0]}; the live bundle "
                f"is as it was"
            )

    def record(self, status: str, **more: str) -> None:
        """Write `retrain:last`.

        The record is for observers only, so the retrain goes on when Redis is unavailable.
        """
        self._last_report = time.monotonic()
        if self._client is None:
            return
        fields = {
            "status": status,
            "step": self._step,
            "started": self._started_at.isoformat(timespec="seconds"),
            "holder": self._holder,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": f"{time.monotonic() - self._started:.3f}",
            **self._about,
            **more,
        }
        if self.verdict is not None:
            fields[retrains.GATE] = json.dumps(self.verdict)
        try:
            retrains.record(self._client, fields)
        except StoreUnavailable as error:
            log.warning(
                "retrain_status_not_recorded", status=status, step=self._step, error=str(error)
            )
