"""Several processes that answer at one port: API_WORKERS.

The supervisor binds the socket and forks the workers, which accept from its one queue: a connection
that waits there is lost neither when a worker dies nor when it is replaced. The supervisor serves
nothing itself, so a worker is always forked from a process with one thread and nothing connected.

1. A worker that ends by itself is replaced, after a pause if it did not live long.
2. SIGTERM or SIGINT of the supervisor ends all workers, which answer what is under way; any that
   takes longer than END_S is killed.
3. A supervisor that is killed closes its end of a pipe: each worker then ends as by SIGTERM.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

import structlog

from core.errors import ConfigurationError, ProcessFailed
from core.process.stop import SIGNALS

_log = structlog.get_logger(__name__)
SHORT_S = 5.0
"""A worker that lived for less is replaced only after PAUSE_S: it may fail again at once."""
PAUSE_S = 1.0
NOT_STARTED = 3
"""Exit status of a worker that could not start, and wrote the cause to its log."""


class Workers:
    """The supervisor. `run` returns in each worker, and in the supervisor after their end."""

    def __init__(self, count: int, end_s: float) -> None:
        """`end_s`: seconds that a worker may take to end. Raises ConfigurationError."""
        if not hasattr(os, "fork"):
            raise ConfigurationError("API_WORKERS: this system cannot fork; set 1")
        self._count, self._end_s = count, end_s
        self._numbers: dict[int, int] = {}
        self._started: dict[int, float] = {}
        self._stopping = False
        self._failure = ""
        self.supervisor, self._supervisor_end = os.pipe()
        """In a worker: a file that is at its end once the supervisor has ended."""

    def run(self) -> int | None:
        """Fork the workers. In each, its number, with SIGNALS blocked; in the supervisor None.

        Raises ProcessFailed when a worker could not start or had to be killed.
        """
        for number in SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        for worker in range(self._count):
            if self._fork(worker):
                return worker
        while self._numbers:
            pid, status = os.waitpid(-1, 0)
            worker = self._numbers.pop(pid)
            lived_s = time.monotonic() - self._started.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                continue
            _log.error("worker_ended", worker=worker, pid=pid, exit_code=code, lived_s=lived_s)
            if code == NOT_STARTED:
                self._failure = f"worker {worker} of the API could not start; its log has the cause"
                self._stop()
            elif self._fork(worker, PAUSE_S if lived_s < SHORT_S else 0.0):
                return worker
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._failure:
            raise ProcessFailed(self._failure)
        return None

    def _fork(self, worker: int, pause_s: float = 0.0) -> bool:
        """Start a worker, unless the supervisor is stopping. True in the worker."""
        if pause_s:
            time.sleep(pause_s)
        # blocked until the new worker is in `_numbers`, and in the worker until it can obey them
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if self._stopping:
            return False
        pid = os.fork()
        if pid == 0:
            os.close(self._supervisor_end)
            return True
        self._numbers[pid], self._started[pid] = worker, time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _log.info("worker_started", worker=worker, pid=pid)
        return False

    def _stop(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        self._stopping = True
        signal.setitimer(signal.ITIMER_REAL, self._end_s)
        self._signal_all(signal.SIGTERM)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        self._failure = (
            f"{len(self._numbers)} workers of the API did not end within {self._end_s:g} s"
        )
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._numbers:
            os.kill(pid, number)
