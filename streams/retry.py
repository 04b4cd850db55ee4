"""Patience with Redis and Kafka: a call is made again and again while they are away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from core.errors import LogUnavailable, StoreUnavailable

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")

_WAITS_S = (0.1, 0.2, 0.5, 1.0)
"""Seconds between tries; the last one repeats."""


class Retry:
    """Calls until it is answered, or `stopped` is set."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, what: str, call: Callable[[], _Answer]) -> _Answer:
        """The answer of `call`; the log says `what` is waited for. Raises StoreUnavailable and LogUnavailable only once stopped."""
        tries = 0
        while True:
            try:
                return call()
            except (StoreUnavailable, LogUnavailable) as error:
                wait = _WAITS_S[min(tries, len(_WAITS_S) - 1)]
                if tries in (0, 10) or tries % 60 == 0:
                    _log.warning("waiting", what=what, error=str(error))
                tries += 1
                if self._stopped.wait(wait):
                    raise
