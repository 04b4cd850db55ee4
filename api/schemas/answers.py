"""The answers of the API but recommendations (core.types) and explanations (engines.explain)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from api.schemas.bodies import Item, User
from core.types import Fallback, HistoryEvent, Recommendation

_STALE = Meta(description="true when the event of `after` is not in this answer")
_TOKEN = "topic:partition:offset in the log"  # noqa: S105 - names a place in the log


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the API answers."""


class Error(Answer, frozen=True, kw_only=True):
    """Every answer that is not a success."""

    error: Annotated[
        str, Meta(description="a stable word for programs", examples=["invalid_parameter"])
    ]
    detail: Annotated[
        str,
        Meta(
            description="a sentence for people",
            examples=["limit must be a whole number from 1 to 100, not '0'"],
        ),
    ]


class ItemList(Answer, frozen=True, kw_only=True):
    """Items for no particular user: popular items, similar items."""

    method_used: Annotated[str, Meta(examples=["popular"])]
    fallbacks: list[Fallback]
    model_version: Annotated[str | None, Meta(examples=["2026-11-22T10-00-00Z"])]
    degraded: bool
    recommendations: list[Recommendation]


class EventResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The result of one event: a token, or an error."""

    index: Annotated[int, Meta(description="place in the request, from 0", examples=[0])]
    event_id: Annotated[str | None, Meta(examples=["0f3b8c5e-6f0a-4f53-9f0e-2a4cf6f3a1d7"])] = None
    token: Annotated[str | None, Meta(description=_TOKEN, examples=["interactions:0:182734"])] = (
        None
    )
    error: Annotated[str | None, Meta(examples=["bad_timestamp"])] = None
    detail: str | None = None


class EventResults(Answer, frozen=True, kw_only=True):
    """The result of each event of a request, in the order of the request."""

    accepted: Annotated[int, Meta(examples=[1])]
    rejected: Annotated[int, Meta(examples=[0])]
    results: list[EventResult]


class Accepted(Answer, frozen=True, kw_only=True):
    """A change of the catalogue or a user is in the log; answers show it within about a second."""

    id: Annotated[str, Meta(examples=["startup-9"])]
    token: Annotated[str, Meta(description=_TOKEN, examples=["items:0:17"])]


class EntryResult(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The result of one item or user of a request: a token, or an error."""

    index: Annotated[int, Meta(description="place in the request, from 0", examples=[0])]
    id: Annotated[str | None, Meta(examples=["startup-9"])] = None
    token: Annotated[str | None, Meta(description=_TOKEN, examples=["items:0:17"])] = None
    error: Annotated[str | None, Meta(examples=["unknown_field"])] = None
    detail: str | None = None


class EntryResults(Answer, frozen=True, kw_only=True):
    """The result of each item or user of a request, in the order of the request."""

    accepted: Annotated[int, Meta(examples=[1])]
    rejected: Annotated[int, Meta(examples=[0])]
    results: list[EntryResult]


class ItemAnswer(Answer, frozen=True, kw_only=True):
    """The catalogue entry of an item, as answers show it."""

    item: Item
    stale: Annotated[bool, _STALE]
    degraded: bool


class ItemPage(Answer, frozen=True, kw_only=True):
    """A part of the catalogue."""

    items: list[Item]
    cursor: Annotated[
        str | None,
        Meta(description="for the next page; null: this was the last one", examples=["17"]),
    ]


class UserAnswer(Answer, frozen=True, kw_only=True):
    """The stored state of a user, and the engine that answers them."""

    user_id: str
    known: Annotated[
        bool,
        Meta(
            description="false: no event and no declaration of this user is stored (never seen, or "
            "deleted)"
        ),
    ]
    interaction_count: int
    counts: Annotated[dict[str, int], Meta(description="interactions by event type")]
    first_seen: int | None
    history: Annotated[list[HistoryEvent], Meta(description="latest events, oldest first")]
    profile: User | None
    engine: Annotated[
        str,
        Meta(
            description="the engine that the router picks for this many interactions",
            examples=["als"],
        ),
    ]
    why: Annotated[str, Meta(examples=["5 <= 17 interactions < 20"])]
    stale: Annotated[bool, _STALE]
    degraded: bool


class SimilarUser(Answer, frozen=True, kw_only=True):
    """A user with similar interactions."""

    user_id: Annotated[str, Meta(examples=["17"])]
    score: Annotated[float, Meta(description="cosine of the ALS vectors", examples=[0.83])]
    rank: Annotated[int, Meta(description="counts from 1", examples=[1])]
    shared_items: Annotated[
        list[str],
        Meta(
            description="items in both histories, latest of the requested user first",
            examples=[["startup-3"]],
        ),
    ]


class SimilarUsers(Answer, frozen=True, kw_only=True):
    """Users with similar interactions, among those that the live bundle was trained on."""

    user_id: str
    interaction_count: int
    model_version: str | None
    cause: Annotated[
        str | None,
        Meta(description="why there are none", examples=["the user has no history"]),
    ]
    stale: Annotated[bool, _STALE]
    degraded: bool
    users: list[SimilarUser]


class Missing(Answer, frozen=True, kw_only=True):
    """A part of the service that fails or is not loaded."""

    part: Annotated[str, Meta(examples=["redis"])]
    cause: str


class Ready(Answer, frozen=True, kw_only=True):
    """Whether this process can answer, and what is missing."""

    ready: bool
    degraded: bool
    model_version: str | None
    models: Annotated[
        list[str],
        Meta(
            description="parts of the bundle that are loaded",
            examples=[["als", "content_based", "popular"]],
        ),
    ]
    catalogue_items: int
    missing: list[Missing]


class Live(Answer, frozen=True, kw_only=True):
    """The process runs."""

    alive: bool = True
