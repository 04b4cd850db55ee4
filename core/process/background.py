"""Throttles long work of one thread, so that other threads of the process answer without delay.

Python runs one thread at a time. A busy thread gets half of the time, and more whenever the other
thread releases the interpreter (in numpy, in a socket), so answers take more than twice as long
while the work runs. A thread `in_background` works for a millisecond and then sleeps for several:
the work takes longer, and answers hardly do.

Call `pause` between the steps of long work, and wrap its loops in `with_pauses`. Outside of
`in_background` both do nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

SHARE = 0.2
"""Maximum share of the time in which a background thread works."""
WORK_S = 0.001
"""Seconds of work, by the thread's CPU clock, before a pause: well below the time of one answer."""
EVERY = 64
"""Entries of a loop between two reads of the clock, one of which costs as much as an entry."""


class _State(threading.local):
    paused_at: float | None = None
    """The thread's CPU clock at its last pause; None: not in the background."""


_state = _State()


@contextmanager
def in_background() -> Iterator[None]:
    """Throttle this thread within the block."""
    _state.paused_at = time.thread_time()
    try:
        yield
    finally:
        _state.paused_at = None


def pause() -> None:
    """Sleep in proportion to the work since the last pause, once that is WORK_S."""
    if _state.paused_at is None:
        return
    worked = time.thread_time() - _state.paused_at
    if worked >= WORK_S:
        time.sleep(worked * (1 / SHARE - 1))
        _state.paused_at = time.thread_time()


def with_pauses(entries: Iterable[T]) -> Iterator[T]:
    """The same entries, with pauses between them."""
    for number, entry in enumerate(entries):
        if number % EVERY == 0:
            pause()
        yield entry
