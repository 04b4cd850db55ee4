"""The time-out of the request that is being answered."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

current: ContextVar[asyncio.Timeout | None] = ContextVar("deadline", default=None)


def disable() -> None:
    """End the request's time-out: the caller has its own, and names what it waits for.

    Two time-outs that expire in the same turn of a late event loop would both cancel the request,
    and the answer would be `timeout` instead of the cause.
    """
    timeout = current.get()
    if timeout is not None and not timeout.expired():
        timeout.reschedule(None)
