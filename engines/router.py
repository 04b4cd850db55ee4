"""Picks the engine for a user by the user's live number of interactions."""

from __future__ import annotations

import msgspec

from core.settings.router import RouterSettings
from models.router.thresholds import NEVER, PreferredThresholds, named

CHAIN = ("ensemble", "als", "two_tower", "content_based", "popular")
"""The engines, best-informed first. Each is the fallback of the one before it."""


class Thresholds(msgspec.Struct, frozen=True):
    """The numbers of interactions from which ALS (`cold`) and the ensemble (`warm`) answer.

    `why`: why these apply, in words.
    """

    cold: int
    warm: int
    why: str

    def __str__(self) -> str:
        """The routing in one line, such as `content_based < 5 <= als < 20 <= ensemble`."""
        line = "content_based"
        for limit, engine in ((self.cold, "als"), (self.warm, "ensemble")):
            if limit < NEVER:
                line += f" < {limit} <= {engine}"
        return line

    @property
    def explained(self) -> str:
        """The routing in one line, and why its thresholds apply."""
        return f"{self} ({self.why})"


def thresholds(settings: RouterSettings, bundle: PreferredThresholds | None) -> Thresholds:
    """The thresholds that apply: those of the settings, or, with ROUTER=auto, of the bundle.

    `bundle`: what the bundle's validation users prefer. It applies where it is better than the
    settings' pair by more than chance.
    """
    configured = settings.cold_start_threshold, settings.warm_user_threshold
    if settings.router == "fixed":
        return Thresholds(*configured, "ROUTER=fixed")
    if bundle is None:
        return Thresholds(*configured, "ROUTER=auto: the bundle has measured no other thresholds")
    if bundle.configured != configured:
        cause = f"the bundle compared others with {named(bundle.configured)} only"
        return Thresholds(*configured, f"ROUTER=auto: {cause}")
    if bundle.better:
        return Thresholds(
            *bundle.preferred, f"ROUTER=auto: {bundle.measured}, beside {named(configured)}"
        )
    return Thresholds(*configured, f"ROUTER=auto: {_no_better(bundle)}")


def _no_better(bundle: PreferredThresholds) -> str:
    if bundle.preferred == bundle.configured:
        return f"no others did better for {bundle.users:,} users"
    return f"{named(bundle.preferred)} may be better by chance alone, {bundle.measured}"


def route(events: int, limits: Thresholds) -> str:
    """The engine's name for a user with `events` interactions."""
    if events < limits.cold:
        return "content_based"
    return "als" if events < limits.warm else "ensemble"


def segment(events: int, settings: RouterSettings) -> str:
    """The user's segment in evaluations, by the thresholds of the settings: `cold`, `warm` or
    `hot`.
    """
    if events < settings.cold_start_threshold:
        return "cold"
    return "warm" if events < settings.warm_user_threshold else "hot"
