"""What the API answers and takes, as its OpenAPI page shows it.

The hot path encodes core.types by msgspec; tests hold those answers against these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(_Answer):
    """Every answer that is not a success."""

    error: str = Field(description="a stable word for programs", examples=["invalid_parameter"])
    detail: str = Field(
        description="a sentence for people",
        examples=["limit must be a whole number from 1 to 100, not '0'"],
    )


class Reason(_Answer):
    """Why an item is shown."""

    kind: str = Field(examples=["similar_to_your_items"])
    text: str = Field(examples=["because you liked startup-3"])
    items: list[str] = Field(
        default=[], description="the user's own items that it rests on", examples=[["startup-3"]]
    )
    attributes: list[str] = Field(
        default=[], description="the attributes that match", examples=[["fintech"]]
    )
    contribution: float | None = Field(default=None, description="share of the engine's raw score")


class Recommendation(_Answer):
    """One line of an answer."""

    item_id: str = Field(examples=["startup-9"])
    score: float = Field(description="comparable within one engine only", examples=[0.83])
    rank: int = Field(description="counts from 1", examples=[1])
    method: str = Field(
        description="the engine that this line comes from, or `exploration`", examples=["als"]
    )
    reasons: list[Reason]
    metadata: dict[str, Any] = Field(
        description="the item's catalogue entry",
        examples=[{"title": "Ledgerly", "categories": ["fintech"]}],
    )
    propensity: float | None = Field(
        default=None,
        description="only on a line by `exploration`: the probability with which this item was drawn",
        examples=[0.02],
    )


class Fallback(_Answer):
    """An engine that was asked and could not fill the answer."""

    engine: str = Field(examples=["ensemble"])
    cause: str = Field(examples=["not loaded"])


class Recommendations(_Answer):
    """A whole answer, out of one bundle."""

    user_id: str = Field(examples=["42"])
    recommendation_id: str = Field(
        description="send it on as `recommendation_id` of the events that this answer leads to",
        examples=["9f86d081884c7d65"],
    )
    variant: str | None = Field(
        description="`experiment.variant` that made the answer, if the user takes part in one",
        examples=["blend.half"],
    )
    method_used: str = Field(
        description=(
            "the first engine that contributed: content_based, als, two_tower, ensemble or popular"
        ),
        examples=["als"],
    )
    fallbacks: list[Fallback]
    interaction_count: int = Field(description="the user's live interactions", examples=[17])
    model_version: str | None = Field(
        description="the bundle that answered; null when none is loaded",
        examples=["2026-11-22T10-00-00Z"],
    )
    as_of: int = Field(
        description="how many of the user's interactions the answer rests on", examples=[17]
    )
    stale: bool = Field(description="true when the event of `after` is not in this answer")
    degraded: bool = Field(
        description="true while Redis, Kafka or the model is missing; /health/ready names which"
    )
    recommendations: list[Recommendation]


class ItemList(_Answer):
    """An answer that is about no user: popular items, similar items."""

    method_used: str = Field(examples=["popular"])
    fallbacks: list[Fallback]
    model_version: str | None = Field(examples=["2026-11-22T10-00-00Z"])
    degraded: bool
    recommendations: list[Recommendation]


class Event(BaseModel):
    """One interaction; docs/event-contract.md is the whole contract."""

    event_id: str = Field(
        description="yours to choose; sent twice, it counts once",
        examples=["0f3b8c5e-6f0a-4f53-9f0e-2a4cf6f3a1d7"],
    )
    user_id: str = Field(examples=["42"])
    item_id: str = Field(examples=["startup-9"])
    event_type: str = Field(examples=["like"])
    timestamp: float = Field(description="seconds since 1970 (UTC)", examples=[1795341600.0])
    value: float | None = Field(
        default=None, description="scales the event type's weight, as a rating does"
    )
    use_case: str | None = Field(default=None, examples=["developer_startup"])
    context: dict[str, Any] | None = None
    recommendation_id: str | None = None
    schema_version: int = 1


class EventResult(_Answer):
    """What became of one event: a token, or an error."""

    index: int = Field(description="place in the request, from 0", examples=[0])
    event_id: str | None = Field(default=None, examples=["0f3b8c5e-6f0a-4f53-9f0e-2a4cf6f3a1d7"])
    token: str | None = Field(
        default=None,
        description="topic:partition:offset in the log",
        examples=["interactions:0:182734"],
    )
    error: str | None = Field(default=None, examples=["bad_timestamp"])
    detail: str | None = None


class EventResults(_Answer):
    """What became of each event of a request, in its order."""

    accepted: int = Field(examples=[1])
    rejected: int = Field(examples=[0])
    results: list[EventResult]


class Item(BaseModel):
    """A catalogue entry. It replaces the former one whole."""

    item_id: str | None = Field(
        default=None, description="may be left out: the path names it", examples=["startup-9"]
    )
    item_type: str = Field(examples=["startup"])
    title: str | None = Field(default=None, examples=["Ledgerly"])
    categories: list[str] = Field(default=[], examples=[["fintech"]])
    tags: list[str] = Field(default=[], examples=[["python", "kafka"]])
    text: str | None = Field(default=None, examples=["Books that close themselves."])
    attributes: dict[str, Any] = Field(default={}, examples=[{"stage": "seed", "team_size": 7}])
    available: bool = True
    created_at: float | None = Field(default=None, description="seconds since 1970 (UTC)")


class User(BaseModel):
    """What a user declares. It replaces the former declaration whole."""

    user_id: str | None = Field(
        default=None, description="may be left out: the path names it", examples=["42"]
    )
    roles: list[str] = Field(default=[], examples=[["developer"]])
    interests: list[str] = Field(default=[], examples=[["fintech", "python"]])
    attributes: dict[str, Any] = {}


class Accepted(_Answer):
    """A change of the catalogue is in the log; it shows in answers within about a second."""

    id: str = Field(examples=["startup-9"])
    token: str = Field(description="topic:partition:offset in the log", examples=["items:0:17"])


class HistoryEvent(_Answer):
    """One of the user's latest events."""

    timestamp: int
    event_type: str
    item_id: str
    value: float | None = None


class UserAnswer(_Answer):
    """Everything held about a user, and who would serve them."""

    user_id: str
    known: bool = Field(
        description=(
            "false: no event and no declaration of this user was ever seen (or they were deleted)"
        )
    )
    interaction_count: int
    counts: dict[str, int] = Field(description="interactions by event type")
    first_seen: int | None
    history: list[HistoryEvent] = Field(description="latest events, oldest first")
    profile: User | None
    engine: str = Field(
        description="the engine that the router picks for this many interactions", examples=["als"]
    )
    why: str = Field(examples=["5 <= 17 interactions < 20"])
    stale: bool = Field(description="true when the event of `after` is not in this answer")
    degraded: bool


class SimilarUser(_Answer):
    """A user with like taste."""

    user_id: str = Field(examples=["17"])
    score: float = Field(description="cosine of the ALS vectors", examples=[0.83])
    rank: int = Field(description="counts from 1", examples=[1])
    shared_items: list[str] = Field(
        description="items that both touched, the asked user's latest first",
        examples=[["startup-3"]],
    )


class SimilarUsers(_Answer):
    """Users with like taste, among those that the live bundle was trained on."""

    user_id: str
    interaction_count: int
    model_version: str | None
    cause: str | None = Field(
        description="why there are none", examples=["the user has no history"]
    )
    stale: bool = Field(description="true when the event of `after` is not in this answer")
    degraded: bool
    users: list[SimilarUser]


class EngineView(_Answer):
    """What one engine says of the item."""

    engine: str = Field(examples=["als"])
    score: float | None
    rank: int | None = Field(description="counts from 1, among `candidates`")
    candidates: int = Field(
        description=(
            "items that pass the filters and that the engine has an opinion on, this one included"
        )
    )
    normalised: float | None = Field(description="how the score enters a blend, if it enters one")
    weight: float | None = Field(description="its weight in that blend")
    cause: str | None = Field(description="why the engine says nothing")
    contributions: list[Reason] = Field(description="all that made the score, largest first")


class Explanation(_Answer):
    """Why an item is shown to a user, or why it is not."""

    user_id: str
    item_id: str
    shown: bool = Field(description="whether the item is in the answer to this very request")
    rank: int | None = Field(description="its place in that answer")
    rank_if_allowed: int | None = Field(
        description=(
            "its place among all items, were it allowed; null when `method_used` has no "
            "opinion on it"
        )
    )
    method_used: str = Field(description="the engine that answers this user")
    variant: str | None = Field(
        description="`experiment.variant` that answers this user, if there is one"
    )
    removed_by: list[str] = Field(
        description="every filter that keeps it out",
        examples=[["the user has already interacted with it"]],
    )
    routing: str = Field(examples=["17 interactions: content_based < 5 <= als < 20 <= ensemble"])
    interaction_count: int
    model_version: str | None
    engines: list[EngineView]
    stale: bool = Field(description="true when the event of `after` is not in this answer")
    degraded: bool


class Missing(_Answer):
    """A part that answers have to do without."""

    part: str = Field(examples=["redis"])
    cause: str


class Ready(_Answer):
    """What this process can answer from."""

    ready: bool
    degraded: bool
    model_version: str | None
    models: list[str] = Field(
        description="parts of the bundle that are loaded",
        examples=[["als", "content_based", "popular"]],
    )
    catalogue_items: int
    missing: list[Missing]


class Live(_Answer):
    """The process runs."""

    alive: bool = True


class ReadQuery(BaseModel):
    """The query string of a read."""

    limit: int = Field(
        default=10,
        ge=1,
        description="recommendations in the answer; API_MAX_LIMIT at most",
        examples=[10],
    )
    category: str | None = Field(
        default=None,
        description="only items of at least one of these categories; comma-separated or repeated",
    )
    item_type: str | None = Field(
        default=None, description="only items of these types; default: the use case's, else any"
    )
    exclude: str | None = Field(
        default=None, description="ids of items not to show; comma-separated or repeated"
    )
    include_seen: bool | None = Field(
        default=None,
        description="true: also items the user has interacted with; default: as the use case says",
    )
    available_only: bool | None = Field(
        default=None,
        description="false: also items that are not available; default: as the use case says",
    )
    engine: str | None = Field(
        default=None,
        description=(
            "ask this engine first (ensemble, als, two_tower, content_based, popular); "
            "default: the router's"
        ),
    )
    use_case: str | None = Field(default=None, description="name of a configured use case")
    diversity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="how much the list avoids being more of the same; default: DIVERSITY",
        examples=[0.3],
    )
    explore: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the places that new items get by lot; default: EXPLORE",
        examples=[0.1],
    )
    window: Literal["hour", "day", "week"] | None = Field(
        default=None,
        description=(
            "what was popular in the last hour, day or week; default: over all time, halving "
            "with its age"
        ),
    )
    reasons: bool = Field(
        default=True, description="false: without reasons, which cost a fifth of a read"
    )
    after: str | None = Field(
        default=None,
        description=(
            "token of a write: the answer waits until that write is in it, API_AFTER_S at "
            "most, and else says `stale`"
        ),
        examples=["interactions:0:182734"],
    )
    attr: dict[str, str] | None = Field(
        default=None,
        description="filters by attribute: `attr.stage=seed` equals, `attr.stage=seed,a` one of, "
        "`attr.team_size.min=3` and "
        "`attr.team_size.max=20` a range",
    )
