"""The answer of the route that compares what each engine would answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.schemas.answers import Answer
from core.types import Recommendation, Recommendations


class EngineAnswer(Answer, frozen=True, kw_only=True):
    """What one engine alone would answer."""

    engine: Annotated[str, Meta(examples=["als"])]
    cause: Annotated[
        str | None,
        Meta(description="why it has fewer items than requested, or none", examples=["not loaded"]),
    ]
    recommendations: list[Recommendation]


class Preview(Answer, frozen=True, kw_only=True):
    """What a user would get, and what each engine alone would answer."""

    user_id: str
    interaction_count: Annotated[
        int, Meta(description="with the changes of the request", examples=[17])
    ]
    routing: Annotated[
        str, Meta(examples=["17 interactions: content_based < 5 <= als < 20 <= ensemble"])
    ]
    answer: Annotated[Recommendations, Meta(description="what the user would get")]
    engines: list[EngineAnswer]
