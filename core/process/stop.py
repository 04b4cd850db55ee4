"""Limits the time that a process takes to stop."""

from __future__ import annotations

import os
import sys
import threading

import structlog

_log = structlog.get_logger(__name__)

STOP_S = 20.0
"""Maximum seconds from a signal to the end of the process.

Below the 30 s after which an orchestrator kills.
"""


def limit(reason: str) -> None:
    """End this process with exit code 0 after STOP_S seconds, if it still runs then.

    For processes whose unfinished work the next process repeats from the log; the log line has
    `reason`. Without a limit, a client library waits for minutes for a server that accepts
    connections and does not answer.
    """
    timer = threading.Timer(STOP_S, _end, (reason,))
    timer.daemon = True
    timer.start()


def _end(reason: str) -> None:
    _log.warning("stop_forced", after_s=STOP_S, reason=reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
