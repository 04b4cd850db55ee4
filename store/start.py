"""Announces a process in its log, and waits for Kafka and Redis when it starts.

It waits START_TIMEOUT_S at most and logs that once; after that the process ends with one line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from core.errors import LogRefused, LogUnavailable, ModelCorrupt, StoreUnavailable
from core.redaction import masked_url
from core.settings import Settings
from core.version import VERSION
from models.pointer import Pointer

_log = structlog.get_logger(__name__)

_TRY_S = 1.0
"""Seconds between two attempts, and the longest time until a stop is noticed."""


def announce(settings: Settings, role: str, group: str | None = None) -> None:
    """Log what starts: the role and version, its servers, its consumer group, and the models."""
    try:
        live = next(iter(Pointer(settings.models_path).read()), None)
    except ModelCorrupt as error:
        live = f"unknown: {error}"
    _log.info(
        "process_started",
        role=role,
        version=VERSION,
        kafka=settings.kafka_bootstrap_servers,
        redis=masked_url(settings.redis_url.get_secret_value()),
        group=group,
        models=str(settings.models_path),
        live_bundle=live,
    )


def until_ready(settings: Settings, stopped: threading.Event, prepare: Callable[[], None]) -> bool:
    """Call `prepare` until it succeeds. False: `stopped` was set before.

    `prepare` may run several times. Raises LogUnavailable or StoreUnavailable when `prepare` still
    raises it after START_TIMEOUT_S; any other error of `prepare`, LogRefused among
    them, at once.
    """
    started = time.monotonic()
    waiting = False
    while not stopped.is_set():
        try:
            prepare()
        except (LogUnavailable, StoreUnavailable) as error:
            if isinstance(error, LogRefused):
                raise
            waited = time.monotonic() - started
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
                _log.info("start_continues", waited_s=round(time.monotonic() - started, 1))
            return True
    return False
