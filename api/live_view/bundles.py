"""Follows the registry's pointer: loads the bundle that it names, and frees the one before."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from api.health import Health
from core.process.background import pause
from core.settings import Settings
from core.types import Item
from models.bundle import LOADERS, Bundle
from models.registry import Registry

RETRY_MODEL_S = 10.0
"""Seconds until a version that could not be loaded is tried again: reading and hashing a bundle
costs as much as loading it.
"""
FREED_AT_ONCE = 200
"""Entries of a catalogue that are freed at once: about 0.2 ms."""


class BundleLoader:
    """Loads what the pointer names; a version that fails is tried again every RETRY_MODEL_S."""

    def __init__(self, settings: Settings) -> None:
        self._registry = Registry(settings.models_path)
        self._overrides = {
            "als": settings.als_model_path,
            "two_tower": settings.two_tower_model_path,
        }
        self._mapped = settings.models_mapped
        self._attempt: tuple[str | None, float] = (None, float("-inf"))

    def current(self) -> str | None:
        """The version that the pointer names. Raises ModelError, OSError."""
        return self._registry.current()

    def may_try(self, version: str | None) -> bool:
        """Whether `version` may be loaded now: it was not tried within RETRY_MODEL_S."""
        attempted, at = self._attempt
        return version != attempted or time.monotonic() - at >= RETRY_MODEL_S

    def load(self, version: str | None) -> Bundle:
        """Load and verify `version`. Raises ModelError, OSError."""
        self._attempt = version, time.monotonic()
        return self._registry.load(
            version, self._overrides["als"], self._overrides["two_tower"], mapped=self._mapped
        )

    def report_damage(self, bundle: Bundle, health: Health) -> None:
        """Tell `health` which parts could not be loaded.

        A part that the bundle was made without is no fault.
        """
        for part in LOADERS:
            expected = part in bundle.manifest.parts or self._overrides.get(part) is not None
            if part in bundle.missing and expected:
                health.mark_failed(part, bundle.missing[part])
            elif health.failure(part) is not None:
                health.mark_working(part)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the garbage collector while a bundle is built, and freezes the objects afterwards, as
    at the start (api/server/process.py).

    The collector would walk thousands of entries again and again, and reads would wait 15 ms each
    time at 10,000 items. A bundle holds no cycle, so it is freed with its last reference all the
    same.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def free_gradually(entries: list[Item | None]) -> None:
    """Free the entries of a replaced bundle a few at a time.

    With the bundle they would all be freed at once, and reads would wait for that.
    """
    while entries:
        del entries[-FREED_AT_ONCE:]
        pause()
