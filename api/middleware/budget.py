"""Limits what expensive routes use of a process, so that ordinary reads stay fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from api.errors import ApiError
from api.metrics import Metrics
from core.process.background import in_background

_Answer = TypeVar("_Answer")
SHARE = 1 / 3
"""Share of the time that the worker's thread may work. While it works, a read waits for the
interpreter at each step, and takes about three times as long.
"""


class Worker:
    """The one thread of a process for expensive answers.

    More threads would only take the interpreter from the event loop more often.
    """

    def __init__(self, metrics: Metrics, waiting: int) -> None:
        """`waiting`: requests of one route that may wait while one of them runs
        (API_EXPENSIVE_WAITING).
        """
        self._metrics, self._waiting = metrics, waiting
        self._rest_until = 0.0
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="expensive")

    def budget(self, route: str) -> Budget:
        """The budget of one route; `route` names it in metrics and answers."""
        return Budget(self, route, self._waiting, self._metrics)

    async def run(self, work: Callable[[], _Answer]) -> _Answer:
        """Run `work` in the thread, which rests often enough that ordinary reads go on.

        Raises what `work` raises.
        """

        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)

    def _run(self, work: Callable[[], _Answer]) -> _Answer:
        # the rest after the work before, whose caller has its answer already
        time.sleep(max(0.0, self._rest_until - time.monotonic()))
        began, worked = time.monotonic(), time.thread_time()
        try:
            with in_background():
                return work()
        finally:
            self._rest_until = began + (time.thread_time() - worked) / SHARE

    def close(self) -> None:
        """End the thread, after the work that is running."""
        self._threads.shutdown(wait=True, cancel_futures=True)


class Budget:
    """One running request of a route, and `waiting` more in turn. Belongs to one event loop."""

    def __init__(self, worker: Worker, route: str, waiting: int, metrics: Metrics) -> None:
        self._worker, self._route, self._metrics = worker, route, metrics
        self._most, self._requests = 1 + waiting, 0

    async def run(self, work: Callable[[], _Answer]) -> _Answer:
        """Run `work` in the worker's thread when it is this request's turn.

        Raises ApiError 429 when too many wait, and what `work` raises.
        """
        if self._requests >= self._most:
            self._metrics.count_refusal(self._route)
            raise ApiError(
                429,
                "too_busy",
                f"{self._most} requests of this route run or wait; send it again",
                {"retry-after": "1"},
            )
        self._requests += 1
        try:
            return await self._worker.run(work)
        finally:
            self._requests -= 1
