"""Makes what a recommender needs of the options of `python -m engines`."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from core.errors import ConfigurationError
from core.process.cli import load_settings
from core.types import Filters, HistoryEvent, Request, User, UserState
from engines.builder import build
from engines.command_line.options import FilterOptions
from engines.recommender import Recommender
from engines.selection.filters import defaults
from models import bundle as bundles
from models.registry import Registry


def recommender(folder: Path | None, version: str | None) -> Recommender:
    """The recommender of the bundle in `folder`, or of a published version (None: the live one)."""
    configured = load_settings()
    overrides = {"als": configured.als_model_path, "two_tower": configured.two_tower_model_path}
    if folder is not None:
        return build(bundles.load(folder, overrides), settings=configured)
    return build(
        Registry(configured.models_path).load(version, overrides["als"], overrides["two_tower"]),
        settings=configured,
    )


def request(
    recommender: Recommender, use_case_name: str | None, options: FilterOptions, request: Request
) -> Request:
    """`request` with the use case and the filters; an unset filter gets the use case's default.

    Raises ConfigurationError for an unknown use case.
    """
    use_case = None
    if use_case_name is not None:
        by_name = recommender.settings.use_cases.by_name
        use_case = by_name.get(use_case_name)
        if use_case is None:
            raise ConfigurationError(
                f"there is no use case {use_case_name!r}; configured: "
                f"{', '.join(by_name) or 'none'}"
            )
    default = defaults(use_case)
    filters = Filters(
        categories=tuple(_split(options.category)),
        item_types=tuple(_split(options.item_type)),
        exclude_items=frozenset(_split(options.exclude)),
        exclude_seen=default.exclude_seen
        if options.include_seen is None
        else not options.include_seen,
        available_only=default.available_only
        if options.available_only is None
        else options.available_only,
    )
    return msgspec.structs.replace(request, use_case=use_case, filters=filters)


def state(
    recommender: Recommender, history: str, interests: str, event_type: str | None
) -> UserState:
    """A user whose events with the items of `history` are all of now.

    Raises ConfigurationError for an unknown event type.
    """
    weights = recommender.settings.use_cases.event_types
    if event_type is None:
        event_type = (
            "like"
            if "like" in weights
            else next((name for name, weight in weights.items() if weight > 0), next(iter(weights)))
        )
    if event_type not in weights:
        raise ConfigurationError(
            f"there is no event type {event_type!r}; configured: {', '.join(weights)}"
        )
    now = int(time.time())
    events = [
        HistoryEvent(timestamp=now, event_type=event_type, item_id=item_id)
        for item_id in _split(history)
    ]
    profile = User(user_id="user", interests=_split(interests)) if interests else None
    counts = {event_type: len(events)} if events else {}
    return UserState(
        user_id="user", events=len(events), counts=counts, history=events, profile=profile
    )


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
