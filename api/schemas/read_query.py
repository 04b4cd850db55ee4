"""The query string of reads, as the OpenAPI document describes it; api.routes.query parses it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from api.schemas.document import Body, schema

_SHARE = Meta(ge=0, le=1)
_WINDOW = Meta(extra_json_schema={"enum": ["hour", "day", "week"]})


class ReadQuery(Body, frozen=True, kw_only=True):
    """Every parameter of a read; each route accepts some of them."""

    limit: Annotated[
        int,
        Meta(
            ge=1,
            description="number of recommendations in the answer; API_MAX_LIMIT at most",
            examples=[10],
        ),
    ] = 10
    category: Annotated[
        str | None,
        Meta(
            description="only items of at least one of these categories; comma-separated or "
            "repeated"
        ),
    ] = None
    item_type: Annotated[
        str | None,
        Meta(description="only items of these types; default: the use case's type, else all"),
    ] = None
    exclude: Annotated[
        str | None,
        Meta(description="ids of items to leave out; comma-separated or repeated"),
    ] = None
    include_seen: Annotated[
        bool | None,
        Meta(
            description="true: also items that the user has interacted with; default: set by the "
            "use case"
        ),
    ] = None
    available_only: Annotated[
        bool | None,
        Meta(description="false: also items that are not available; default: set by the use case"),
    ] = None
    engine: Annotated[
        str | None,
        Meta(
            description="the first engine of the chain (ensemble, als, two_tower, content_based, "
            "popular); default: the router picks it"
        ),
    ] = None
    use_case: Annotated[str | None, Meta(description="name of a configured use case")] = None
    diversity: Annotated[
        Annotated[float, _SHARE] | None,
        Meta(
            description="how strongly the list avoids similar items; default: DIVERSITY",
            examples=[0.3],
        ),
    ] = None
    explore: Annotated[
        Annotated[float, _SHARE] | None,
        Meta(
            description="share of the places for randomly drawn new items; default: EXPLORE",
            examples=[0.1],
        ),
    ] = None
    window: Annotated[
        Annotated[str, _WINDOW] | None,
        Meta(
            description="popularity in the last hour, day or week; default: over all time, halving "
            "with its age"
        ),
    ] = None
    reasons: Annotated[
        bool, Meta(description="false: without reasons, which take a fifth of the time of a read")
    ] = True
    after: Annotated[
        str | None,
        Meta(
            description="token of a write: the answer waits for that write, API_AFTER_S at most, "
            "and is `stale` without it",
            examples=["interactions:0:182734"],
        ),
    ] = None
    attr: Annotated[
        dict[str, str] | None,
        Meta(
            description="filters by attribute: `attr.stage=seed` equals, `attr.stage=seed,a` one "
            "of, `attr.team_size.min=3` and `attr.team_size.max=20` a range"
        ),
    ] = None


_PROPERTIES = schema(ReadQuery)["properties"]


def query_parameters(*names: str) -> list[dict[str, Any]]:
    """The OpenAPI parameters of these names."""
    return [_parameter(name, dict(_PROPERTIES[name])) for name in names]


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    del schema["title"]
    parameter: dict[str, Any] = {
        "name": name,
        "in": "query",
        "required": False,
        "description": schema.pop("description"),
    }
    if examples := schema.pop("examples", None):
        parameter["example"] = examples[0]
    if name == "attr":  # free names: OpenAPI describes them as one exploded object
        parameter |= {"style": "form", "explode": True}
    return parameter | {"schema": schema}
