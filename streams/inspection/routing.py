"""Tells which engine answers a user, as far as settings and the live bundle's files show."""

from __future__ import annotations

from core.errors import EddylineError, ModelError, ModelMissing
from core.settings import Settings
from engines import router
from models.registry import Registry


def thresholds(settings: Settings) -> router.Thresholds:
    """The thresholds that apply with the live bundle, as the API has them."""
    registry, preferred = Registry(settings.models_path), None
    if settings.router == "auto":
        try:
            if (live := registry.current()) is not None:
                preferred = registry.load_part(live, "router")
        except ModelMissing:
            pass  # a bundle without thresholds: `Thresholds.why` says so
        except ModelError as error:
            limits = router.thresholds(settings, None)
            return router.Thresholds(limits.cold, limits.warm, f"ROUTER=auto: {error}")
    return router.thresholds(settings, preferred)


def obstacles(settings: Settings, engine: str) -> str:
    """Why the routed engine cannot answer; empty when nothing prevents it."""
    reasons = []
    if engine == "ensemble" and not settings.enable_ensemble:
        reasons.append("ENABLE_ENSEMBLE is false, so ALS is next")
    if engine in ("als", "ensemble") and not settings.enable_als:
        reasons.append("ENABLE_ALS is false")
    try:
        live = Registry(settings.models_path).current()
        parts = [] if live is None else Registry(settings.models_path).manifest(live).parts
        if live is None:
            reasons.append(f"no bundle is published in {settings.models_path}")
        elif engine in ("als", "ensemble"):
            reasons.extend(
                f"the bundle {live} has no {part}"
                for part in ("als", "two_tower")
                if part not in parts and part in (engine, "two_tower")
            )
    except EddylineError as error:
        reasons.append(str(error))
    return "".join(f"; {reason}" for reason in reasons)
