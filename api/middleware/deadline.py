"""The clock of the request that is being answered."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

current: ContextVar[asyncio.Timeout | None] = ContextVar("deadline", default=None)


def hand_over() -> None:
    """Stop the request's clock: from here on the caller bounds the time by itself, and says what it
    waited for.

    Two clocks that end in the same turn of a late event loop would both cancel the request, and the
    answer would be `timeout` instead of the cause.
    """
    clock = current.get()
    if clock is not None and not clock.expired():
        clock.reschedule(None)
