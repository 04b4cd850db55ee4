"""Limits the fold-ins of a live worker to a share of the time: reads and ingest go first."""

from __future__ import annotations

import math
import time

ROUND_S = 1.0
"""Seconds between the begins of two batches while there is more to do than the share allows."""
GATHER_S = 0.1
"""Seconds of rest at least, in which the events of a user gather: one fold-in counts them all."""
MOST_REST_S = 2.0
"""Seconds of rest at most, also after a batch that had to wait for Redis."""


class WorkShare:
    """A batch ends after `share` of ROUND_S, and a rest follows in proportion to its time.

    Other work on the machine makes batches slow, and so the rests longer. A share of 1 never rests.
    """

    def __init__(self, share: float) -> None:
        """`share`: LIVE_CPU_SHARE, above 0 and at most 1."""
        self._share = share

    def until(self) -> float:
        """When a batch that begins now ends (time.perf_counter())."""
        return math.inf if self._share == 1 else time.perf_counter() + self._share * ROUND_S

    def rest_s(self, busy_s: float) -> float:
        """Seconds of rest after a batch that took `busy_s`."""
        if self._share == 1:
            return 0.0
        return min(max(GATHER_S, busy_s * (1 / self._share - 1)), MOST_REST_S)
