"""A least-recently-used cache of a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class LruCache(Generic[T]):
    """Keeps the `limit` values used last, by key.

    Keys may come from untrusted callers, so the size is bounded. Thread-safe.
    """

    __slots__ = ("_limit", "_lock", "_values")

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, Lock()
        self._values: dict[Hashable, T] = {}

    def __reduce__(self) -> tuple[type[LruCache[T]], tuple[int]]:
        """A copy in another process is empty."""
        return LruCache, (self._limit,)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`; on a miss `make()` computes it.

        It is computed twice if two threads miss at the same time.
        """
        with self._lock:
            if key in self._values:
                # moves the key to the end: used last
                value = self._values[key] = self._values.pop(key)
                return value
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._limit:
                del self._values[next(iter(self._values))]
        return value
