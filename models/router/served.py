"""What users get from a bundle beside its best single engine, by segment, as a retrain measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from core.settings.router import RouterMode
from models.router.thresholds import PreferredThresholds, named

LEAST_USERS = 20
"""Least users of a segment to compare engines: with fewer, single users decide."""
LEAST_CHANGE = 0.01
"""Least change of a segment's NDCG@10 to name: below it the users of a fold differ by chance."""
FIELD = "served"
"""Field of the manifest's `metrics`."""


class ServedSegment(msgspec.Struct, frozen=True, kw_only=True):
    """NDCG@10 of the users of one segment.

    `fixed`: of what the router gives them by the configured thresholds; `auto`: by those that the
    other users prefer, where these are better. `best`: of the best single engine, `best_engine`,
    with its 95% interval `low` to `high`.
    """

    segment: str
    users: int
    fixed: float
    auto: float
    best_engine: str
    best: float
    low: float
    high: float


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """The judged segments, and the thresholds that the judged users prefer.

    `router`: ROUTER when they were judged.
    """

    router: RouterMode
    segments: list[ServedSegment]
    thresholds: PreferredThresholds


def of_manifest(metrics: Mapping[str, Any]) -> Served | None:
    """What a manifest's `metrics` say; None where its retrain measured nothing."""
    try:
        return msgspec.convert(metrics.get(FIELD), Served | None)
    except msgspec.ValidationError:  # of a release whose fields have another meaning
        return None


def summary(served: Served | None, router: RouterMode | None = None) -> str:
    """What users get beside the best engine by segment, and the one setting that changes it.

    Plain text of two sentences. `router`: ROUTER, None for that of the retrain.
    """
    segments = [] if served is None else served.segments
    judged = [one for one in segments if one.users >= LEAST_USERS and one.segment != "all"]
    if served is None or not judged:
        return (
            f"Too few users were judged to say what users get: a segment needs {LEAST_USERS} "
            f"who interact with new items after the cut."
        )
    automatic = (router or served.router) == "auto"
    phrases = [_phrase(one, one.auto if automatic else one.fixed) for one in judged]
    text = "; ".join(phrases).replace(" users ", " users get NDCG@10 ", 1)
    return f"{text[0].upper()}{text[1:]}. {_setting(served.thresholds, judged, automatic)}"


def _phrase(one: ServedSegment, value: float) -> str:
    """Such as `warm users .081, 12% below als alone (.092 [.085, .099])`."""
    alone = f"{one.best_engine} alone ({_short(one.best)} [{_short(one.low)}, {_short(one.high)}])"
    ratio = value / one.best - 1.0 if one.best > 0 else 0.0
    beside = f"{abs(ratio):.0%} {'above' if ratio > 0 else 'below'}"
    if f"{abs(ratio):.0%}" == "0%":
        beside = "as"
    within = ", within its interval" if one.low <= value < one.best else ""
    return f"{one.segment} users {_short(value)}, {beside} {alone}{within}"


def _setting(
    thresholds: PreferredThresholds, judged: Sequence[ServedSegment], automatic: bool
) -> str:
    if not thresholds.better:
        return "No other thresholds are better by more than chance."
    pairs = f"{named(thresholds.preferred)} instead of {named(thresholds.configured)}"
    if automatic:
        return f"ROUTER=auto routes by {pairs}."
    changed = [
        f"{one.segment} users {_short(one.auto)}"
        for one in judged
        if abs(one.auto - one.fixed) >= LEAST_CHANGE * one.fixed
    ] or ["others more"]
    return f"ROUTER=auto ({pairs}) would give {' and '.join(changed)}."


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
