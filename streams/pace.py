"""Limits the speed at which events are sent: by a rate, or by their own timestamps."""

from __future__ import annotations

import threading
import time


class Pace:
    """Limits events to `rate` per second, evenly; 0 is no limit.

    After a pause it does not send the missed events in a burst.
    """

    def __init__(self, rate: float, stopped: threading.Event) -> None:
        self._gap = 1 / rate if rate > 0 else 0.0
        self._stopped = stopped
        self._due = time.monotonic()

    def wait(self) -> bool:
        """Wait until the next event may be sent; returns False when stopped."""
        if self._gap:
            self._due = max(self._due + self._gap, time.monotonic() - 1.0)
            wait = self._due - time.monotonic()
            if wait > 0.001:
                self._stopped.wait(wait)
        return not self._stopped.is_set()


class Clock:
    """Sends events at the intervals of their own timestamps, `speed` times as fast."""

    def __init__(self, speed: float, stopped: threading.Event) -> None:
        self._speed, self._stopped = speed, stopped
        self._shift: float | None = None

    def wait(self, timestamp: float) -> bool:
        """Wait until this clock, which starts with the first event, shows `timestamp` (seconds).

        Returns False when stopped.
        """
        now = time.monotonic()
        if self._shift is None:
            self._shift = now - timestamp / self._speed
        wait = timestamp / self._speed + self._shift - now
        if wait > 0.001:
            self._stopped.wait(wait)
        return not self._stopped.is_set()
