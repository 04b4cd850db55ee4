"""Long work of one thread while another answers: it leaves the interpreter to the other most of the
time.

Python runs one thread at a time. One that has much to do gets half of the time, and more wherever
the other one lets go for a moment (in numpy, in a socket), so answers take more than twice as long
for as long as the work goes on. A thread `in_background` works for a millisecond and then sleeps
for several: the work takes longer, and answers hardly do.

`rest` stands where long work has a natural pause, `resting` in its loops. Anywhere but in the
background they do nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

SHARE = 0.2
"""Of the time that a thread in the background works at most."""
WORK_S = 0.001
"""Seconds of work, by the thread's own clock, that make a rest worth while: well below what one
answer takes among several.
"""
EVERY = 64
"""Entries of a loop between two looks at the clock, which costs as much as an entry or two."""


class _State(threading.local):
    rested_at: float | None = None
    """Reading of the thread's clock at its last rest; None: not in the background."""


_state = _State()


@contextmanager
def in_background() -> Iterator[None]:
    """Within the block this thread rests."""
    _state.rested_at = time.thread_time()
    try:
        yield
    finally:
        _state.rested_at = None


def rest() -> None:
    """Sleep for as long as the work since the last rest calls for."""
    if _state.rested_at is None:
        return
    worked = time.thread_time() - _state.rested_at
    if worked >= WORK_S:
        time.sleep(worked * (1 / SHARE - 1))
        _state.rested_at = time.thread_time()


def resting(entries: Iterable[T]) -> Iterator[T]:
    """The same entries, with rests between them."""
    for number, entry in enumerate(entries):
        if number % EVERY == 0:
            rest()
        yield entry
