"""Decides when a request is retried: exponential back-off with jitter, `Retry-After`, and limits on
number and time.
"""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

import msgspec

JITTER = 0.5
"""Share of a wait that is random, so that clients do not all retry at the same time."""
_MOST_DOUBLINGS = 60
"""More would overflow a float; the longest wait is reached long before."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`attempts`: requests in all, 1 for no retry. The n-th wait is `first_wait_s` * 2^(n-1),
    `longest_wait_s` at most, less jitter.

    No retry begins later than `total_s` seconds after the call. The defaults cover the restart of
    a server (about 5 s) and end within 15 s plus one request.
    """

    attempts: int = 10
    first_wait_s: float = 0.1
    longest_wait_s: float = 3.0
    total_s: float = 15.0


class Backoff:
    """The waits of one call."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._deadline = time.monotonic() + policy.total_s
        self.attempts = 1

    def next_wait(self, retry_after_s: float = 0.0) -> float | None:
        """Seconds to wait before the next attempt; None when there is none left.

        `retry_after_s`: the wait that the server requests; one beyond the time left ends the call
        at once.
        """
        backoff = min(
            self._policy.longest_wait_s,
            self._policy.first_wait_s * 2.0 ** min(self.attempts - 1, _MOST_DOUBLINGS),
        )
        wait = max(retry_after_s, backoff * (1 - JITTER * random.random()))
        if self.attempts >= self._policy.attempts or time.monotonic() + wait > self._deadline:
            return None
        self.attempts += 1
        return wait


def retry_after_s(header: str | None) -> float:
    """The seconds of a Retry-After header, a number or a date; 0 without a valid one."""
    if not header:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
