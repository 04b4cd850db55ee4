"""What tests of every room share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self, TypeVar

_Value = TypeVar("_Value")


def eventually(condition: Callable[[], _Value], what: str, timeout: float = 30.0, every: float = 0.02) -> _Value:
    """The first truthy value of `condition()`, asked every `every` seconds. Raises AssertionError with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what} (last answer: {value!r})")
        time.sleep(every)
    return value


class Background:
    """Runs `run(number)` in each of `threads` threads while the block lasts; `run` returns soon once `ended` is set."""

    def __init__(self, threads: int = 1) -> None:
        self.ended = threading.Event()
        self._threads = [
            threading.Thread(target=self.run, args=(number,), name=f"{type(self).__name__}-{number}") for number in range(threads)
        ]

    def run(self, number: int) -> None:
        """What a thread does."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()
