"""`python -m engines`: recommend and explain from a published bundle, without Kafka and Redis."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from core.process import cli
from core.process.tables import AsJson, Wide
from core.types import Request
from engines.command_line.options import (
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

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Recommend and explain from a published bundle, without Kafka and Redis.",
)


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
    wide: Wide = False,
) -> None:
    """Recommend items to a user with this history and these interests."""
    from engines.command_line import requests, terminal

    recommender = requests.recommender(bundle, version)
    options = FilterOptions(category, item_type, exclude, include_seen, available_only)
    request = requests.request(
        recommender,
        use_case,
        options,
        Request(limit=limit, engine=engine, diversity=diversity, explore=explore),
    )
    answer = recommender.recommend(
        requests.state(recommender, history, interests, event_type), request
    )
    terminal.show(
        answer,
        as_json,
        wide,
        partial(terminal.recommendations, answer, recommender.bundle),
    )


@app.command()
def similar(
    item_id: Annotated[str, typer.Argument(help="The item to compare with")],
    limit: Limit = 10,
    bundle: BundleFolder = None,
    version: Version = None,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Show the items most similar to one item: by ALS factors, then by content."""
    from engines.command_line import requests, terminal

    recommender = requests.recommender(bundle, version)
    answer = recommender.similar(item_id, Request(limit=limit))
    terminal.show(
        answer,
        as_json,
        wide,
        partial(terminal.recommendations, answer, recommender.bundle),
    )


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
    wide: Wide = False,
) -> None:
    """Explain why an item is shown or not: scores, ranks, contributions and filters."""
    from engines.command_line import requests, terminal
    from engines.explain import explain

    recommender = requests.recommender(bundle, version)
    options = FilterOptions(category, item_type, exclude, include_seen, available_only)
    request = requests.request(
        recommender,
        use_case,
        options,
        Request(limit=limit, engine=engine, diversity=diversity, explore=explore),
    )
    explanation = explain(
        recommender, requests.state(recommender, history, interests, event_type), item_id, request
    )
    terminal.show(explanation, as_json, wide, partial(terminal.explanation, explanation))


if __name__ == "__main__":
    cli.run(app)
