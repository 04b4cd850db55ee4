"""What tests of every room share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")


def eventually(condition: Callable[[], _Value], what: str, timeout: float = 30.0, every: float = 0.02) -> _Value:
    """The first truthy value of `condition()`, asked every `every` seconds. Raises AssertionError with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what} (last answer: {value!r})")
        time.sleep(every)
    return value
