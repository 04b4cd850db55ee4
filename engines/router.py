"""Picks the engine for a user by the user's live number of interactions."""

from __future__ import annotations

from core.settings import Settings

CHAIN = ("ensemble", "als", "two_tower", "content_based", "popular")
"""The engines, best-informed first. Each is the fallback of the one before it."""


def route(events: int, settings: Settings) -> str:
    """The engine's name for a user with `events` interactions."""
    if events < settings.cold_start_threshold:
        return "content_based"
    return "als" if events < settings.warm_user_threshold else "ensemble"


def describe(settings: Settings) -> str:
    """The routing in one line, such as `content_based < 5 <= als < 20 <= ensemble`."""
    return (
        f"content_based < {settings.cold_start_threshold} <= als < "
        f"{settings.warm_user_threshold} <= ensemble"
    )


def segment(events: int, settings: Settings) -> str:
    """The user's segment in evaluations: `cold`, `warm` or `hot`, by engine."""
    return {"content_based": "cold", "als": "warm", "ensemble": "hot"}[route(events, settings)]
