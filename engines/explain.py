"""Explains why an item is in a user's answer or not: scores, ranks and contributions by engine."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import structlog
from msgspec import Meta

from core.types import Reason, Request, UserState
from engines import router
from engines.base import NotApplicable, Scoring, eligible
from engines.blending.ensemble import EnsembleEngine, EnsembleScoring
from engines.recommender import Recommender
from engines.selection.filters import conditions, objections

_log = structlog.get_logger("engines")


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """The score of the item by one engine, or the cause why there is none.

    `contributions` add up to `score` for ALS, content and the ensemble. The product of `normalised`
    and `weight` is the engine's part of the ensemble's score.
    """

    engine: Annotated[str, Meta(examples=["als"])]
    score: float | None = None
    rank: Annotated[int | None, Meta(description="counts from 1, among `candidates`")] = None
    candidates: Annotated[
        int,
        Meta(
            description="number of items that pass the filters and have a score; includes this item"
        ),
    ] = 0
    normalised: Annotated[
        float | None,
        Meta(description="the score on the ensemble's scale; null for other engines"),
    ] = None
    weight: Annotated[float | None, Meta(description="its weight in the ensemble")] = None
    cause: Annotated[str | None, Meta(description="why the engine has no score")] = None
    contributions: Annotated[
        list[Reason], Meta(description="the parts of the score, largest first")
    ] = []


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an item is in a user's answer, or why it is not."""

    user_id: str
    item_id: str
    shown: Annotated[
        bool, Meta(description="whether the item is in the answer to the same request")
    ]
    rank: Annotated[int | None, Meta(description="its place in that answer")]
    rank_if_allowed: Annotated[
        int | None,
        Meta(
            description="its rank by `method_used` without the filters on this item; null when "
            "that engine has no score for it"
        ),
    ]
    method_used: Annotated[str, Meta(description="the engine that answers this user")]
    removed_by: Annotated[
        list[str],
        Meta(
            description="every filter that excludes it",
            examples=[["the user has already interacted with it"]],
        ),
    ]
    routing: Annotated[
        str, Meta(examples=["17 interactions: content_based < 5 <= als < 20 <= ensemble"])
    ]
    interaction_count: int
    model_version: str | None
    engines: list[EngineView]
    variant: Annotated[
        str | None,
        Meta(description="the `experiment.variant` that answers this user; null without one"),
    ] = None
    stale: Annotated[
        bool, Meta(description="true when the event of `after` is not in this answer")
    ] = False
    degraded: bool = False


def explain(
    recommender: Recommender, state: UserState, item_id: str, request: Request
) -> Explanation:
    """Explain `item_id` for the user of `state` and the answer of `recommender` to `request`.

    Raises ConfigurationError as `Recommender.recommend` does.
    """
    answer = recommender.recommend(state, request)
    views = _with_shares(
        recommender,
        [_view(recommender, name, state, item_id, request) for name in router.CHAIN],
        state,
        item_id,
        request,
    )
    by_name = {view.engine: view for view in views}
    rank = next((item.rank for item in answer.recommendations if item.item_id == item_id), None)
    return Explanation(
        user_id=state.user_id,
        item_id=item_id,
        shown=rank is not None,
        rank=rank,
        rank_if_allowed=by_name[answer.method_used].rank,
        method_used=answer.method_used,
        removed_by=removed_by(recommender, state, item_id, request),
        routing=f"{state.events} interactions: {recommender.thresholds.explained}",
        interaction_count=state.events,
        model_version=recommender.bundle.version,
        engines=views,
    )


def removed_by(
    recommender: Recommender, state: UserState, item_id: str, request: Request
) -> list[str]:
    """All filters that exclude the item from this user's answers, in words; empty if none does."""
    catalogue, filters = recommender.catalogue, request.filters
    causes = []
    if item_id in catalogue.deleted:
        causes.append("it was deleted from the catalogue")
    elif item_id not in catalogue.rows:
        causes.append("neither the catalogue nor a model knows it")
    else:
        causes += objections(catalogue.get(item_id), conditions(request))
    if filters.exclude_seen and any(event.item_id == item_id for event in state.history):
        causes.append("the user has already interacted with it")
    if item_id in filters.exclude_items:
        causes.append("the request excludes it by its id")
    return causes


def _view(
    recommender: Recommender, name: str, state: UserState, item_id: str, request: Request
) -> EngineView:
    if cause := recommender.unavailable(name):
        return EngineView(engine=name, cause=cause)
    row = recommender.catalogue.rows.get(item_id)
    if row is None:
        return EngineView(engine=name, cause="the item is unknown")
    scoring = _scoring(recommender, name, state, request)
    if isinstance(scoring, str):
        return EngineView(engine=name, cause=scoring)
    candidates = eligible(recommender.catalogue, state, request)
    candidates[row] = True
    rank = scoring.rank(row, candidates)
    count = int(np.count_nonzero(candidates & np.isfinite(scoring.scores)))
    if rank is None:
        return EngineView(
            engine=name, candidates=count, cause="the engine has no score for the item"
        )
    return EngineView(
        engine=name,
        score=float(scoring.scores[row]),
        rank=rank,
        candidates=count,
        contributions=scoring.contributions(row),
    )


def _with_shares(
    recommender: Recommender,
    views: list[EngineView],
    state: UserState,
    item_id: str,
    request: Request,
) -> list[EngineView]:
    """`views`, with `normalised` and `weight` for the engines that are parts of the ensemble."""
    row = recommender.catalogue.rows.get(item_id)
    if row is None or recommender.unavailable(EnsembleEngine.name):
        return views
    scoring = _scoring(recommender, EnsembleEngine.name, state, request)
    if not isinstance(scoring, EnsembleScoring):
        return views
    return [
        msgspec.structs.replace(view, normalised=part.normalised, weight=part.weight)
        if (part := scoring.part(view.engine, row))
        else view
        for view in views
    ]


def _scoring(
    recommender: Recommender, name: str, state: UserState, request: Request
) -> Scoring | str:
    """The scoring of engine `name` for the user, or the cause why there is none."""
    try:
        return recommender.engines[name].score(state, request)
    except NotApplicable as cause:
        return str(cause)
    except Exception as error:  # noqa: BLE001 - as in `Recommender`, the other engines still answer
        _log.exception("engine_failed", engine=name, model_version=recommender.bundle.version)
        return f"failed with {type(error).__name__}; the log has the traceback"
