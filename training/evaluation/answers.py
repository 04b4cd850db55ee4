"""Answers a user by several engines, as an evaluation judges them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from core.errors import ModelError
from core.types import Filters, Recommendations, Request, UserState
from engines.recommender import Recommender

ROUTED = "routed"
"""Stands for the engine that the router picks."""


class AnsweredBy(NamedTuple):
    """Those `engines` of `recommender` that answer every user, by lists of `length` items."""

    recommender: Recommender
    engines: Sequence[str]
    length: int


class Answer(NamedTuple):
    """The items that a user gets; `own`: which of them no fallback filled in."""

    item_ids: list[str]
    own: list[bool]


def answer(answered_by: AnsweredBy, user: tuple[UserState, Filters]) -> dict[str, Answer]:
    """Engine -> its answer to `user`. Raises ModelError when an engine failed."""
    recommender, (state, filters) = answered_by.recommender, user
    request = Request(limit=answered_by.length, filters=filters, reasons=False)
    routed = ask(recommender, state, request)
    by_engine = {}
    for engine in answered_by.engines:
        # When the routed answer begins with this engine, it is the answer of this engine.
        lines = (
            routed
            if engine in (ROUTED, routed.method_used)
            else ask(recommender, state, replace(request, engine=engine))
        ).recommendations
        by_engine[engine] = Answer(
            [line.item_id for line in lines],
            [engine in (ROUTED, line.method) for line in lines],
        )
    return by_engine


def ask(recommender: Recommender, state: UserState, request: Request) -> Recommendations:
    """Answer `request`.

    Raises ModelError when an engine failed: serving falls back then, but an evaluation must not
    hide it.
    """
    answer = recommender.recommend(state, request)
    for fallback in answer.fallbacks:
        if fallback.engine in recommender.engines and fallback.cause.startswith("failed with"):
            raise ModelError(
                f"engine {fallback.engine} {fallback.cause} (user {state.user_id!r}); it "
                f"cannot be evaluated"
            )
    return answer
