"""A bound on the time that a process takes to stop."""

from __future__ import annotations

import os
import sys
import threading

import structlog

_log = structlog.get_logger(__name__)

STOP_S = 20.0
"""Seconds from a signal to the end of the process at the latest: below the 30 s after which an
orchestrator kills.
"""


def limit(reason: str) -> None:
    """End this process with exit code 0 in STOP_S seconds if it still runs then.

    For processes whose unfinished work is done again by the next one, from the log. `reason`: what
    the log line says about that. A client library may wait for a server that accepts connections
    and answers nothing, for minutes and without a time limit.
    """
    timer = threading.Timer(STOP_S, _end, (reason,))
    timer.daemon = True
    timer.start()


def _end(reason: str) -> None:
    _log.warning("stop_forced", after_s=STOP_S, reason=reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
