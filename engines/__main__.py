"""`python -m engines`: recommend and explain from a published bundle, without Kafka and Redis."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from core import settings
from core.errors import ConfigurationError
from core.process import cli, logs
from core.types import Filters, HistoryEvent, Request, User, UserState
from engines.builder import build
from engines.command_line import terminal
from engines.command_line.options import (
    AsJson,
    AvailableOnly,
    BundleFolder,
    Categories,
    Diversity,
    EngineOption,
    EventType,
    Exclude,
    Explore,
    FilterOptions,
    History,
    IncludeSeen,
    Interests,
    ItemTypes,
    Limit,
    UseCaseName,
    Version,
)
from engines.explain import explain
from engines.recommender import Recommender
from engines.selection.filters import defaults
from models import bundle as bundles
from models.registry import Registry

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.command()
def recommend(
    history: History = "",
    interests: Interests = "",
    engine: EngineOption = None,
    use_case: UseCaseName = None,
    event_type: EventType = None,
    limit: Limit = 10,
    diversity: Diversity = None,
    explore: Explore = None,
    category: Categories = "",
    item_type: ItemTypes = "",
    exclude: Exclude = "",
    include_seen: IncludeSeen = None,
    available_only: AvailableOnly = None,
    bundle: BundleFolder = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Recommend items to a user with this history and these interests."""
    recommender = _recommender(bundle, version)
    options = FilterOptions(category, item_type, exclude, include_seen, available_only)
    request = _request(
        recommender,
        use_case,
        options,
        Request(limit=limit, engine=engine, diversity=diversity, explore=explore),
    )
    answer = recommender.recommend(_state(recommender, history, interests, event_type), request)
    terminal.show(answer, as_json, lambda: terminal.recommendations(answer, recommender.bundle))


@app.command()
def similar(
    item_id: Annotated[str, typer.Argument(help="The item to compare with")],
    limit: Limit = 10,
    bundle: BundleFolder = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Show the items most similar to one item: by ALS factors, then by content."""
    recommender = _recommender(bundle, version)
    answer = recommender.similar(item_id, Request(limit=limit))
    terminal.show(answer, as_json, lambda: terminal.recommendations(answer, recommender.bundle))


@app.command("explain")
def explain_item(
    item_id: Annotated[str, typer.Argument(help="The item to explain")],
    history: History = "",
    interests: Interests = "",
    engine: EngineOption = None,
    use_case: UseCaseName = None,
    event_type: EventType = None,
    limit: Limit = 10,
    diversity: Diversity = None,
    explore: Explore = None,
    category: Categories = "",
    item_type: ItemTypes = "",
    exclude: Exclude = "",
    include_seen: IncludeSeen = None,
    available_only: AvailableOnly = None,
    bundle: BundleFolder = None,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Explain why an item is shown or not: scores, ranks, contributions and filters."""
    recommender = _recommender(bundle, version)
    options = FilterOptions(category, item_type, exclude, include_seen, available_only)
    request = _request(
        recommender,
        use_case,
        options,
        Request(limit=limit, engine=engine, diversity=diversity, explore=explore),
    )
    explanation = explain(
        recommender, _state(recommender, history, interests, event_type), item_id, request
    )
    terminal.show(explanation, as_json, lambda: terminal.explanation(explanation))


def _recommender(folder: Path | None, version: str | None) -> Recommender:
    configured = settings.load()
    logs.configure(configured.log_level)
    overrides = {"als": configured.als_model_path, "two_tower": configured.two_tower_model_path}
    if folder is not None:
        return build(bundles.load(folder, overrides), settings=configured)
    return build(
        Registry(configured.models_path).load(version, overrides["als"], overrides["two_tower"]),
        settings=configured,
    )


def _request(
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


def _state(
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


if __name__ == "__main__":
    cli.run(app)
