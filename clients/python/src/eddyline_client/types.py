"""The types of requests and answers: immutable msgspec structs with the field names of the wire.

tests/clients/test_wire_types.py in Eddyline's repository compares every field, type and default
with the OpenAPI document and the JSON Schemas. Unknown fields of an answer are ignored, so that an
older client can read the answers of a newer server.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

Value = str | int | float | bool | list[str] | None
"""The value of an attribute of an item or a user."""


def _new_id() -> str:
    return str(uuid.uuid4())


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One interaction: a user did something with an item.

    `event_id` identifies the event: sent again, it counts once. `timestamp`: seconds since 1970
    (UTC). `value` scales the weight of the type, as the stars of a rating do (0 to 1,000,000).
    `recommendation_id`: of the answer that led to this event, if one did.
    """

    user_id: str
    item_id: str
    event_type: str
    event_id: str = msgspec.field(default_factory=_new_id)
    timestamp: float = msgspec.field(default_factory=time.time)
    value: float | None = None
    use_case: str | None = None
    context: dict[str, Any] | None = None
    recommendation_id: str | None = None
    schema_version: int = 1


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A catalogue entry; it replaces the whole entry before it.

    `created_at`: seconds since 1970 (UTC).
    """

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
    """What a user declares; it replaces the whole declaration before it."""

    user_id: str
    roles: list[str] = []
    interests: list[str] = []
    attributes: dict[str, Value] = {}


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Body of every answer that is not a success: a stable word, a sentence for people."""

    error: str
    detail: str


class EventResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one event: `token` (`topic:partition:offset`), or `error` and `detail`."""

    index: int
    event_id: str | None = None
    token: str | None = None
    error: str | None = None
    detail: str | None = None


class EventResults(msgspec.Struct, frozen=True, kw_only=True):
    """The result of each event, in the order of sending."""

    accepted: int
    rejected: int
    results: list[EventResult]

    @property
    def token(self) -> str | None:
        """Token of the last event.

        A read with `after=token` has this user's events up to it; None if there is no event.
        """
        return self.results[-1].token if self.results else None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an item or a user is in the log. `token`: for `after`."""

    id: str
    token: str


class EntryResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one item or user: `token` (`topic:partition:offset`), or `error`, `detail`."""

    index: int
    id: str | None = None
    token: str | None = None
    error: str | None = None
    detail: str | None = None


class EntryResults(msgspec.Struct, frozen=True, kw_only=True):
    """The result of each item or user, in the order of sending."""

    accepted: int
    rejected: int
    results: list[EntryResult]


class ItemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The catalogue entry of an item."""

    item: Item
    stale: bool
    degraded: bool


class ItemPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the catalogue. `cursor`: for the next part; None: this was the last one."""

    items: list[Item]
    cursor: str | None


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why an item is shown. `contribution`: share of the engine's raw score."""

    kind: str
    text: str
    items: list[str] = []
    attributes: list[str] = []
    contribution: float | None = None


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """One recommended item.

    `rank` counts from 1; scores are comparable within one `method` only; `metadata`: the catalogue
    entry. `propensity`: the probability with which the method `exploration` drew the item.
    """

    item_id: str
    score: float
    rank: int
    method: str
    reasons: list[Reason]
    metadata: dict[str, Any]
    propensity: float | None = None


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that could not fill the answer, and why."""

    engine: str
    cause: str


class Recommendations(msgspec.Struct, frozen=True, kw_only=True):
    """Recommendations for a user.

    `recommendation_id`: send it with the events that this answer leads to. `as_of`: number of the
    user's events that the answer includes. `stale`: the write of `after` is not in it. `degraded`:
    Redis, Kafka or the model is missing.
    """

    user_id: str
    recommendation_id: str
    variant: str | None
    method_used: str
    fallbacks: list[Fallback]
    interaction_count: int
    model_version: str | None
    as_of: int
    stale: bool
    degraded: bool
    recommendations: list[Recommendation]


class EngineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine alone would answer. `cause`: why it has fewer items than requested."""

    engine: str
    cause: str | None
    recommendations: list[Recommendation]


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a user would get, with the changes of the request, and from each engine alone."""

    user_id: str
    interaction_count: int
    routing: str
    answer: Recommendations
    engines: list[EngineAnswer]


class ItemList(msgspec.Struct, frozen=True, kw_only=True):
    """Items for no particular user: popular items, similar items."""

    method_used: str
    fallbacks: list[Fallback]
    model_version: str | None
    degraded: bool
    recommendations: list[Recommendation]


class SimilarUser(msgspec.Struct, frozen=True, kw_only=True):
    """A similar user. `score`: cosine of the ALS vectors; `shared_items`: latest first."""

    user_id: str
    score: float
    rank: int
    shared_items: list[str]


class SimilarUsers(msgspec.Struct, frozen=True, kw_only=True):
    """Users with similar interactions. `cause`: why there are none."""

    user_id: str
    interaction_count: int
    model_version: str | None
    cause: str | None
    stale: bool
    degraded: bool
    users: list[SimilarUser]


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """The score of an item by one engine. `cause`: why there is none."""

    engine: str
    score: float | None
    rank: int | None
    candidates: int
    normalised: float | None
    weight: float | None
    cause: str | None
    contributions: list[Reason]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an item is shown to a user (`rank`, `engines`), or why it is not (`removed_by`)."""

    user_id: str
    item_id: str
    shown: bool
    rank: int | None
    rank_if_allowed: int | None
    method_used: str
    variant: str | None
    removed_by: list[str]
    routing: str
    interaction_count: int
    model_version: str | None
    engines: list[EngineView]
    stale: bool
    degraded: bool


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One of a user's latest events. `timestamp`: whole seconds since 1970 (UTC)."""

    timestamp: int
    event_type: str
    item_id: str
    value: float | None = None


class UserAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The stored state of a user, and the engine that answers them."""

    user_id: str
    known: bool
    interaction_count: int
    counts: dict[str, int]
    first_seen: int | None
    history: list[HistoryEvent]
    profile: User | None
    engine: str
    why: str
    stale: bool
    degraded: bool
