"""The start of a process whose servers may be away: it waits START_TIMEOUT_S for them, says so
once, and then ends with one line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from core.errors import LogUnavailable, StoreUnavailable
from core.settings import Settings

_log = structlog.get_logger(__name__)

_TRY_S = 1.0
"""Seconds between two tries: how late a stop is noticed."""


def until_ready(settings: Settings, stopped: threading.Event, prepare: Callable[[], None]) -> bool:
    """Call `prepare`, which may be repeated, until Kafka and what else it needs answers; False when
    `stopped` was set before.

    Raises LogUnavailable or StoreUnavailable after START_TIMEOUT_S, and at once what `prepare`
    raises besides.
    """
    began = time.monotonic()
    waiting = False
    while not stopped.is_set():
        try:
            prepare()
        except (LogUnavailable, StoreUnavailable) as error:
            waited = time.monotonic() - began
            if waited >= settings.start_timeout_s:
                raise type(error)(
                    f"{error} (waited {waited:.0f} s, START_TIMEOUT_S={settings.start_timeout_s:g})"
                ) from error
            if not waiting:
                _log.warning("start_waits", error=str(error), timeout_s=settings.start_timeout_s)
            waiting = True
            stopped.wait(min(_TRY_S, settings.start_timeout_s - waited))
        else:
            if waiting:
                _log.info("start_continues", waited_s=round(time.monotonic() - began, 1))
            return True
    return False
