"""Defines the types that all rooms share, as immutable msgspec structs.

The types of an answer also describe its fields for the OpenAPI document (api/schemas/document.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Value = str | int | float | bool | list[str] | None
"""Type of an attribute of an item or a user."""

BlendMethod = Literal["min_max", "rank"]
"""How the ensemble puts the scores of its parts on one scale: engines/blending/scales.py."""


class Interaction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One event: a user did something with an item. The contract is docs/event-contract.md.

    `timestamp` is in seconds since 1970 (UTC), fractions allowed; `value` scales the event type's
    weight.
    """

    event_id: str
    user_id: str
    item_id: str
    event_type: str
    timestamp: float
    value: float | None = None
    use_case: str | None = None
    context: msgspec.Raw = msgspec.Raw(b"")
    recommendation_id: str | None = None
    schema_version: int = 1


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A catalogue entry (topic `items`). `created_at` in seconds since 1970 (UTC)."""

    item_id: str
    item_type: str
    title: str | None = None
    categories: list[str] = []
    tags: list[str] = []
    text: str | None = None
    attributes: dict[str, Value] = {}
    available: bool = True
    created_at: float | None = None


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user declares (topic `users`)."""

    user_id: str
    roles: list[str] = []
    interests: list[str] = []
    attributes: dict[str, Value] = {}


class HistoryEvent(msgspec.Struct, frozen=True, gc=False):
    """One line of a user's history in Redis. `timestamp` in whole seconds since 1970 (UTC)."""

    timestamp: int
    event_type: str
    item_id: str
    value: float | None = None


class LiveVector(msgspec.Struct, frozen=True, gc=False):
    """An ALS vector that a live worker wrote to Redis: a cache of a fold-in.

    It is stale unless `made_with` is that of the live model (engines.fold) and `as_of` is the
    user's event count. `vector`: f little-endian float32.
    """

    version: str
    made_with: str
    as_of: int
    vector: bytes


class UserState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one user, read in one round trip to Redis.

    `events` counts every accepted event; `counts` the same by event type; `history` holds the
    latest events (HISTORY_CAP at most) in the order of the log, oldest first.
    """

    user_id: str
    events: int = 0
    counts: dict[str, int] = {}
    first_seen: int | None = None
    history: list[HistoryEvent] = []
    profile: User | None = None
    als: LiveVector | None = None


class UseCase(msgspec.Struct, frozen=True, kw_only=True):
    """A role that looks for a kind of item, with its API path, event weights and filters.

    `default`: events that name no use case count in this one.
    """

    name: str
    role: str
    item_type: str
    path: str
    weights: dict[str, float]
    available_only: bool = True
    exclude_seen: bool = True
    default: bool = False


class AttributeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """One condition on an item's attribute.

    The attribute is equal to `equals`, or one of `one_of`, or within [`low`, `high`].
    """

    name: str
    equals: Value = None
    one_of: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """The items that an answer may contain: those that pass every condition that is set.

    `categories`: at least one of these; `item_types`: one of these.
    """

    item_types: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    attributes: tuple[AttributeFilter, ...] = ()
    available_only: bool = True
    exclude_seen: bool = True
    exclude_items: frozenset[str] = frozenset()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request for `limit` items that pass `filters`.

    `engine`: the first engine of the chain, instead of the routed one. `reasons` False omits the
    reasons, which cost about as much as the ranking itself. `diversity`, `explore`: 0 to 1
    (engines/selection/), None: as the settings say. `at`: the time, in seconds since 1970, at which
    an item counts as new or not; None: the creation of the latest item. `window`: the popular
    engine ranks by the last "hour", "day" or "week" instead of all time.
    """

    limit: int = 10
    use_case: UseCase | None = None
    filters: Filters = Filters()
    engine: str | None = None
    reasons: bool = True
    diversity: float | None = None
    explore: float | None = None
    at: float | None = None
    window: str | None = None


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an item is shown: a sentence for people, and its parts for programs.

    `kind`: `similar_to_your_items` (ALS), `matches_your_interests` (content), `popular`, ...
    """

    kind: Annotated[str, Meta(examples=["similar_to_your_items"])]
    text: Annotated[str, Meta(examples=["because you liked startup-3"])]
    items: Annotated[
        list[str],
        Meta(description="the user's items that contributed", examples=[["startup-3"]]),
    ] = []
    attributes: Annotated[
        list[str], Meta(description="the attributes that match", examples=[["fintech"]])
    ] = []
    contribution: Annotated[float | None, Meta(description="share of the engine's raw score")] = (
        None
    )


class ScoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item from one engine. Scores of one engine are comparable, scores of two are not."""

    item_id: str
    score: float
    engine: str
    reasons: list[Reason] = []


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """An engine of the chain that could not fill the answer, and why."""

    engine: Annotated[str, Meta(examples=["ensemble"])]
    cause: Annotated[str, Meta(examples=["not loaded"])]


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """One recommended item."""

    item_id: Annotated[str, Meta(examples=["startup-9"])]
    score: Annotated[float, Meta(description="comparable within one engine only", examples=[0.83])]
    rank: Annotated[int, Meta(description="counts from 1", examples=[1])]
    method: Annotated[
        str,
        Meta(description="the engine that scored the item, or `exploration`", examples=["als"]),
    ]
    reasons: list[Reason] = []
    metadata: Annotated[
        dict[str, Any],
        Meta(
            description="the item's catalogue entry",
            examples=[{"title": "Ledgerly", "categories": ["fintech"]}],
        ),
    ] = {}
    propensity: Annotated[
        float | msgspec.UnsetType,
        Meta(
            description="only with `exploration`: the probability with which the item was drawn",
            examples=[0.02],
        ),
    ] = msgspec.UNSET


class Recommendations(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, made from one bundle."""

    user_id: Annotated[str, Meta(examples=["42"])]
    recommendation_id: Annotated[
        str,
        Meta(
            description="send it as `recommendation_id` of the events that this answer leads to",
            examples=["9f86d081884c7d65"],
        ),
    ] = ""
    variant: Annotated[
        str | None,
        Meta(
            description="the `experiment.variant` that made the answer; null without an experiment",
            examples=["blend.half"],
        ),
    ] = None
    method_used: Annotated[
        str,
        Meta(
            description="the first engine that contributed: content_based, als, two_tower, "
            "ensemble or popular",
            examples=["als"],
        ),
    ]
    fallbacks: list[Fallback] = []
    interaction_count: Annotated[
        int, Meta(description="the user's live interactions", examples=[17])
    ] = 0
    model_version: Annotated[
        str | None,
        Meta(
            description="the bundle that answered; null when none is loaded",
            examples=["2026-11-22T10-00-00Z"],
        ),
    ] = None
    as_of: Annotated[
        int,
        Meta(description="number of the user's events that the answer includes", examples=[17]),
    ] = 0
    stale: Annotated[
        bool, Meta(description="true when the event of `after` is not in this answer")
    ] = False
    degraded: Annotated[
        bool,
        Meta(
            description="true while Redis, Kafka or the model is missing; /health/ready names which"
        ),
    ] = False
    recommendations: list[Recommendation] = []
