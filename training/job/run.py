"""Where a retrain stands: a line a step for people, the same in Redis for everybody else, seconds for the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog
import typer

from core.errors import Interrupted, StoreUnavailable
from store.state import retrains
from store.state.connection import Client

STEPS = ("snapshot", "dataset", "fit", "evaluate", "gate", "publish", "prune")
TELL_EVERY_S = 1.0
"""Seconds between two notes of progress within a step: one command to Redis each."""

log = structlog.get_logger(__name__)


class Run:
    """One retrain's progress. `step` and `progress` raise Interrupted once `stopped()` says so; any thread may call them."""

    def __init__(
        self, client: Client | None, holder: str, about: Mapping[str, str] | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """`holder`: of the lease; `about`: further fields of `retrain:last`, such as who asked for this run."""
        self._client, self._holder, self._about, self._stopped = client, holder, dict(about or {}), stopped
        self._started, self._began = datetime.now(UTC), time.monotonic()
        self.seconds: dict[str, float] = {}
        self._step, self._since, self._told = "", time.monotonic(), 0.0

    def step(self, name: str, text: str = "") -> None:
        """The step `name` begins. Raises Interrupted."""
        if self._step:
            self.seconds[self._step] = round(time.monotonic() - self._since, 3)
        self.check()
        self._step, self._since = name, time.monotonic()
        self.tell(retrains.RUNNING)
        typer.echo(f"{STEPS.index(name) + 1}/{len(STEPS)} {name} {text}".rstrip(), err=True)

    def progress(self, text: str) -> None:
        """How far the step is; told at most every TELL_EVERY_S. Raises Interrupted."""
        self.check()
        if time.monotonic() - self._told >= TELL_EVERY_S:
            self.tell(retrains.RUNNING, progress=text)

    def check(self) -> None:
        """Raises Interrupted when the retrain was asked to stop."""
        if self._stopped():
            raise Interrupted(f"the retrain was stopped in step {self._step or STEPS[0]}; the live bundle is as it was")

    def tell(self, status: str, **more: str) -> None:
        """Write `retrain:last`. It is for those who watch, so a Redis that is away for a moment stops no retrain."""
        self._told = time.monotonic()
        if self._client is None:
            return
        fields = {
            "status": status,
            "step": self._step,
            "started": self._started.isoformat(timespec="seconds"),
            "holder": self._holder,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": f"{time.monotonic() - self._began:.3f}",
            **self._about,
            **more,
        }
        try:
            retrains.record(self._client, fields)
        except StoreUnavailable as error:
            log.warning("Redis does not hear of the retrain", status=status, step=self._step, error=str(error))
