"""Limits the time that a process takes to stop."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP_S = 20.0
"""Maximum seconds from a signal to the end of the process.

Below the 30 s after which an orchestrator kills.
"""
LAST_S = 5.0
"""Seconds after STOP_S to the end of an interpreter that runs no thread of Python any more."""
_limited = threading.Event()


def on_signal(end: Callable[[], None], reason: str) -> None:
    """Call `end` in the main thread at SIGTERM or SIGINT; `watch` with `reason`."""

    def handle(*_: object) -> None:
        limit(reason)  # at once: `end` may lead to the end of the interpreter before `watch` acts
        end()

    for number in SIGNALS:
        signal.signal(number, handle)
    watch(reason)


def watch(reason: str) -> None:
    """From SIGTERM or SIGINT on, limit the time of this process as `limit` does.

    Also while the main thread waits in a library, where Python runs no handler. Call it in the main
    thread; with an event loop, after the loop has taken the signals.
    """
    signals, wakeup = socket.socketpair()
    wakeup.setblocking(False)  # `set_wakeup_fd` demands it
    # detached: open until the process ends
    behind = signal.set_wakeup_fd(wakeup.detach(), warn_on_full_buffer=False)
    threading.Thread(
        target=_await_signals, args=(signals, behind, reason), name="stop", daemon=True
    ).start()


def _await_signals(signals: socket.socket, behind: int, reason: str) -> None:
    """`signals` has the number of each signal; `behind`: the file of an event loop that waits for
    them too, or -1.
    """
    while number := signals.recv(1):
        if behind != -1:
            with contextlib.suppress(OSError):  # the loop is closed
                os.write(behind, number)
        if number[0] in SIGNALS:
            limit(reason)


def limit(reason: str) -> None:
    """End this process with exit code 0 after STOP_S seconds, if it still runs then.

    For processes whose unfinished work the next process repeats from the log; the log line has
    `reason`. Without a limit, a client library waits for minutes for a server that accepts
    connections and does not answer. An interpreter that is ending already, and hangs, prints its
    stacks and ends with exit code 1. Only the first call counts.
    """
    if _limited.is_set():
        return
    # before `_limited` is set: the thread that finds it set may end the interpreter at once
    faulthandler.dump_traceback_later(STOP_S + LAST_S, exit=True)
    _limited.set()
    timer = threading.Timer(STOP_S, _end, (reason,))
    timer.daemon = True
    timer.start()


def _end(reason: str) -> None:
    _log.warning("stop_forced", after_s=STOP_S, reason=reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
