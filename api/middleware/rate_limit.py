"""Limits requests a second by key, or by address for a request without a key of this server."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from starlette.types import Scope

from api.errors import ApiError
from api.middleware.auth import PROTECTED_PREFIX, Authorization

MOST_CALLERS = 10_000
"""Callers whose rate is stored, about 150 bytes each; the one that is silent for longest is evicted
first, and starts anew.
"""


class RateLimit:
    """The generic cell rate algorithm.

    It stores one number for each caller: the time until which its rate is used up.
    """

    def __init__(self, per_s: float, burst: int, authorization: Authorization) -> None:
        """`per_s`: requests a second in the long run, 0: no limit; `burst`: requests that may come
        at once.
        """
        self._interval_s = 1 / per_s if per_s else 0.0
        self._tolerance_s = self._interval_s * (burst - 1)
        self._authorization = authorization
        self._paid_at: OrderedDict[str | bytes, float] = OrderedDict()

    def refusal(self, scope: Scope) -> ApiError | None:
        """None when the request is within its caller's rate; else 429 with Retry-After.

        Health, metrics and docs have no limit.
        """
        if not self._interval_s or not scope["path"].startswith(PROTECTED_PREFIX):
            return None
        caller = self._authorization.key_digest(scope) or (scope.get("client") or ("",))[0]
        now = time.monotonic()
        paid_at = max(now, self._paid_at.get(caller, 0.0))
        wait_s = paid_at - now - self._tolerance_s
        if wait_s > 1e-9:
            text = (
                "more requests than API_RATE_PER_S from this key, or from this address without "
                "a key"
            )
            return ApiError(429, "rate_limited", text, {"retry-after": str(math.ceil(wait_s))})
        self._paid_at[caller] = paid_at + self._interval_s
        self._paid_at.move_to_end(caller)
        if len(self._paid_at) > MOST_CALLERS:
            self._paid_at.popitem(last=False)
        return None
