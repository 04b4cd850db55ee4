"""Retries calls with back-off while Redis or Kafka is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from core.errors import LogUnavailable, StoreUnavailable
from store import outage

_Result = TypeVar("_Result")

_WAITS_S = (0.1, 0.2, 0.5, 1.0)
"""Seconds between tries; the last one repeats."""


class Retry:
    """Repeats a call until it returns, or `stopped` is set."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, task: str, call: Callable[[], _Result]) -> _Result:
        """Return the result of `call`.

        The log has one line at the start of the outage, with `task`, and one at its end.

        Raises StoreUnavailable and LogUnavailable only once stopped.
        """
        failed: set[outage.Outage] = set()
        tries = 0
        while True:
            try:
                answer = call()
            except (StoreUnavailable, LogUnavailable) as error:
                failed.add(outage.of(error))
                outage.of(error).begin(str(error), task)
                if self._stopped.wait(_WAITS_S[min(tries, len(_WAITS_S) - 1)]):
                    raise
                tries += 1
            else:
                for server in failed:
                    server.end()
                return answer
