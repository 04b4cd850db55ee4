"""The nouns of Eddyline. Immutable msgspec structs: fast to decode, encode and compare."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Value = str | int | float | bool | list[str] | None
"""What an attribute of an item or a user may hold."""

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
    """An ALS vector as the model plane left it in Redis: a cache of a fold-in, never the truth.

    It may be used while `made_with` is that of the live model (engines.fold) and `as_of` the user's
    event count; else it is stale. `vector`: f little-endian float32.
    """

    version: str
    made_with: str
    as_of: int
    vector: bytes


class UserState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a reader knows about one user, from one round trip to Redis.

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
    """A role looking for a kind of item: names the API path, the event weights and the default
    filters.
    """

    name: str
    role: str
    item_type: str
    path: str
    weights: dict[str, float]
    available_only: bool = True
    exclude_seen: bool = True


class AttributeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """One condition on an item's attribute: equal to `equals`, or one of `one_of`, or within
    [`low`, `high`].
    """

    name: str
    equals: Value = None
    one_of: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which items may be shown. An item passes when it passes every condition that is set.

    `categories`: at least one of these; `item_types`: one of these.
    """

    item_types: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    attributes: tuple[AttributeFilter, ...] = ()
    available_only: bool = True
    exclude_seen: bool = True
    exclude_items: frozenset[str] = frozenset()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants: `limit` items that pass `filters`.

    `engine`: the engine to ask first, instead of the routed one. `reasons` False omits the reasons,
    which cost about as much as the ranking itself. `diversity`, `explore`: 0 to 1
    (engines/selection/), None: as the settings say. `at`: seconds since 1970 as of which an item is
    new, for exploration and for content's prior; None: when the latest item was created. `window`:
    the popular engine ranks by the last "hour", "day" or "week" instead of all time.
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
    """Why an item is shown: a sentence for people, and what it rests on for programs.

    `kind`: `similar_to_your_items` (ALS), `matches_your_interests` (content), `popular`, ...;
    `items`/`attributes` name what contributed, `contribution` is its share of the engine's raw
    score.
    """

    kind: str
    text: str
    items: list[str] = []
    attributes: list[str] = []
    contribution: float | None = None


class ScoredItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item from one engine. Scores of one engine are comparable, scores of two are not."""

    item_id: str
    score: float
    engine: str
    reasons: list[Reason] = []


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that was asked and could not fill the answer, and why."""

    engine: str
    cause: str


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an answer; `rank` counts from 1.

    `propensity` of an item that got its place by lot: how likely it was to be drawn.
    """

    item_id: str
    score: float
    rank: int
    method: str
    reasons: list[Reason] = []
    metadata: dict[str, Any] = {}
    propensity: float | msgspec.UnsetType = msgspec.UNSET


class Recommendations(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer.

    `method_used` is the first engine that contributed; `as_of` the number of the user's events that
    the answer rests on; `stale`: the event that the caller waited for is not in it;
    `recommendation_id`: what events that it leads to name it by; `variant`: of the experiment that
    the user takes part in (core/experiments.py).
    """

    user_id: str
    recommendation_id: str | None = None
    variant: str | None = None
    method_used: str
    fallbacks: list[Fallback] = []
    interaction_count: int = 0
    model_version: str | None = None
    as_of: int = 0
    stale: bool = False
    degraded: bool = False
    recommendations: list[Recommendation] = []
