"""`python -m engines`: ask the engines directly, with neither broker nor Redis; a published bundle is enough."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from core import cli, logs, settings
from core.errors import ConfigurationError
from core.types import Filters, HistoryEvent, Request, User, UserState
from engines import terminal
from engines.builder import build
from engines.explain import explain
from engines.recommender import Recommender
from engines.selection.filters import defaults
from models import bundle as bundles
from models.registry import Registry

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


class EngineName(StrEnum):
    """Names of the chain, as choices on the command line."""

    ensemble = "ensemble"
    als = "als"
    two_tower = "two_tower"
    content_based = "content_based"
    popular = "popular"


History = Annotated[str, typer.Option("--history", "-H", metavar="IDS", help="Items that the user touched, oldest first: a,b,c")]
Interests = Annotated[str, typer.Option("--interests", "-i", metavar="WORDS", help="Interests that the user declares: fintech,payments")]
EngineOption = Annotated[EngineName | None, typer.Option("--engine", "-e", help="Ask this engine first; unset: as routed")]
EventType = Annotated[
    str | None,
    typer.Option(
        "--event-type",
        help="What the user did with the items of the history; unset: like, or the first configured type that weighs anything",
    ),
]
UseCaseName = Annotated[str | None, typer.Option("--use-case", "-u", help="A configured use case: its item type, weights, default filters")]
BundleFolder = Annotated[Path | None, typer.Option("--bundle", help="A bundle's folder; unset: the live one in MODELS_PATH", metavar="DIR")]
Version = Annotated[str | None, typer.Option("--version", help="A published version in MODELS_PATH")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Items to show")]
Diversity = Annotated[
    float | None, typer.Option(min=0, max=1, help="How much the list avoids being more of the same; unset: DIVERSITY", metavar="0..1")
]
Explore = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of the places that items new to the bundle get by lot; unset: EXPLORE", metavar="0..1"),
]
Categories = Annotated[str, typer.Option("--category", "-c", metavar="WORDS", help="Only items of at least one of these categories: a,b")]
ItemTypes = Annotated[str, typer.Option("--item-type", metavar="WORDS", help="Only items of one of these types: a,b")]
Exclude = Annotated[str, typer.Option(metavar="IDS", help="Not these items: a,b")]
IncludeSeen = Annotated[bool | None, typer.Option(help="Whether to show what the history holds; unset: as the use case says, or not")]
AvailableOnly = Annotated[bool | None, typer.Option(help="Whether to leave out what is not available; unset: as the use case says, or so")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API would")]


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
    """Recommend items to somebody with this history and these interests."""
    recommender = _recommender(bundle, version)
    narrowed = _Narrowed(category, item_type, exclude, include_seen, available_only)
    request = _request(recommender, use_case, narrowed, Request(limit=limit, engine=engine, diversity=diversity, explore=explore))
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
    """Show the items most like one item: by ALS factors, the rest by content."""
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
    """Say why an item is shown to somebody, or why it is not: each engine's score, rank and contributions, and the filters."""
    recommender = _recommender(bundle, version)
    narrowed = _Narrowed(category, item_type, exclude, include_seen, available_only)
    request = _request(recommender, use_case, narrowed, Request(limit=limit, engine=engine, diversity=diversity, explore=explore))
    found = explain(recommender, _state(recommender, history, interests, event_type), item_id, request)
    terminal.show(found, as_json, lambda: terminal.explanation(found))


def _recommender(folder: Path | None, version: str | None) -> Recommender:
    configured = settings.load()
    logs.configure(configured.log_level)
    overrides = {"als": configured.als_model_path, "two_tower": configured.two_tower_model_path}
    if folder is not None:
        return build(bundles.load(folder, overrides), settings=configured)
    return build(Registry(configured.models_path).load(version, overrides["als"], overrides["two_tower"]), settings=configured)


class _Narrowed(NamedTuple):
    """The options that say which items may be shown."""

    category: str
    item_type: str
    exclude: str
    include_seen: bool | None
    available_only: bool | None


def _request(recommender: Recommender, use_case: str | None, narrowed: _Narrowed, asked: Request) -> Request:
    """`asked` in the use case, if there is one, with the filters that were chosen; what was not follows the use case."""
    found = None
    if use_case is not None:
        found = recommender.settings.use_cases.by_name.get(use_case)
        if found is None:
            known = ", ".join(recommender.settings.use_cases.by_name) or "none"
            raise ConfigurationError(f"there is no use case {use_case!r}; configured: {known}")
    usual = defaults(found)
    filters = Filters(
        categories=tuple(_split(narrowed.category)),
        item_types=tuple(_split(narrowed.item_type)),
        exclude_items=frozenset(_split(narrowed.exclude)),
        exclude_seen=usual.exclude_seen if narrowed.include_seen is None else not narrowed.include_seen,
        available_only=usual.available_only if narrowed.available_only is None else narrowed.available_only,
    )
    return msgspec.structs.replace(asked, use_case=found, filters=filters)


def _state(recommender: Recommender, history: str, interests: str, event_type: str | None) -> UserState:
    weights = recommender.settings.use_cases.event_types
    if event_type is None:
        event_type = "like" if "like" in weights else next((name for name, weight in weights.items() if weight > 0), next(iter(weights)))
    if event_type not in weights:
        raise ConfigurationError(f"there is no event type {event_type!r}; configured: {', '.join(weights)}")
    now = int(time.time())
    events = [HistoryEvent(timestamp=now, event_type=event_type, item_id=item_id) for item_id in _split(history)]
    profile = User(user_id="somebody", interests=_split(interests)) if interests else None
    counts = {event_type: len(events)} if events else {}
    return UserState(user_id="somebody", events=len(events), counts=counts, history=events, profile=profile)


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
    cli.run(app)
