"""Measures how long it takes from a write until an answer has it, by a write of its own.

1. The profile of a reserved user, with a number that counts up, is published to the users topic.
2. Ingest applies it; this process waits for its position, as a read with `after` does.
3. The user is read, and an answer is made and encoded, as for any other read.

The way is that of an interaction: the same broker, the same ingest process and transaction, the
same read. But a profile counts in no popularity, no training and no archive, and the compacted
topic keeps one record of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

import structlog

from api.schemas.live import Probe
from api.service import Service
from core.codec import encode_json
from core.errors import EddylineError
from core.types import Request, User

USER_ID = "eddyline-probe"
"""The reserved user."""
WINDOW_S = 60.0
_log = structlog.get_logger(__name__)


class Prober:
    """Probes while `run` runs, every API_PROBE_S."""

    def __init__(self, service: Service) -> None:
        self._service, self._settings = service, service.settings
        self._times: deque[tuple[float, float | None]] = deque()
        self._number = time.time_ns()  # those of several processes differ

    @property
    def off(self) -> str | None:
        """Why it does not probe; None: it does."""
        if not self._settings.api_probe_s:
            return "API_PROBE_S is 0"
        if not self._settings.api_keys:
            return "this server accepts no writes (API_KEYS), so it makes none"
        return None

    async def run(self) -> None:
        """Probe until cancelled."""
        while self.off is None:
            began = time.monotonic()
            seconds: float | None = None
            try:
                seconds = await self._probe()
            except EddylineError as error:
                _log.debug("probe_failed", error=str(error))
            self._times.append((time.monotonic(), seconds))
            pause = self._settings.api_probe_s - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, pause))

    def forget(self) -> None:
        """Begin again: nobody has looked for a while."""
        self._times.clear()

    def numbers(self) -> Probe:
        """What was measured in the last WINDOW_S."""
        while self._times and time.monotonic() - self._times[0][0] > WINDOW_S:
            self._times.popleft()
        times = [1000 * seconds for _, seconds in self._times if seconds is not None]
        ranked = sorted(times)
        return Probe(
            off=self.off,
            p50_ms=ranked[len(ranked) // 2] if ranked else None,
            p99_ms=ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))] if ranked else None,
            latest_ms=times[-1] if times else None,
            count=len(ranked),
            lost=len(self._times) - len(ranked),
        )

    async def _probe(self) -> float | None:
        """Seconds; None when the answer did not come in time. Raises LogUnavailable, StoreError."""
        if not self._service.broker_answers:
            return None
        self._number += 1
        user = User(user_id=USER_ID, attributes={"probe": str(self._number)})
        began = time.perf_counter()
        token = await self._service.publish(
            self._settings.users_topic, USER_ID.encode(), encode_json(user)
        )
        if not await self._service.arrived(token, self._settings.api_timeout_s):
            return None
        state, _ = await self._service.user_state(USER_ID)
        if state is None or state.profile is None or state.profile.attributes != user.attributes:
            return None
        encode_json(self._service.live.recommend(state, Request(limit=10)))
        return time.perf_counter() - began
