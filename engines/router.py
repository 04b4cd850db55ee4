"""Which engine answers a user, by the user's live count of interactions."""

from __future__ import annotations

from core.settings import Settings

CHAIN = ("ensemble", "als", "two_tower", "content_based", "popular")
"""The engines, best-informed first. Each hands what it cannot fill to the next."""


def route(events: int, settings: Settings) -> str:
    """Name of the engine for a user with `events` interactions."""
    if events < settings.cold_start_threshold:
        return "content_based"
    return "als" if events < settings.warm_user_threshold else "ensemble"


def describe(settings: Settings) -> str:
    """The routing in one line, for the log: `content_based < 5 <= als < 20 <= ensemble`."""
    return f"content_based < {settings.cold_start_threshold} <= als < {settings.warm_user_threshold} <= ensemble"


def segment(events: int, settings: Settings) -> str:
    """`cold`, `warm` or `hot`: the users of each engine, for evaluation."""
    return {"content_based": "cold", "als": "warm", "ensemble": "hot"}[route(events, settings)]
