"""Why an item is shown to a user, or why it is not: every engine's score, rank and contributions, in one shape."""

from __future__ import annotations

import msgspec
import numpy as np
import structlog

from core.types import Reason, Request, UserState
from engines import router
from engines.base import NotApplicable, Scoring, eligible
from engines.blending.ensemble import EnsembleEngine, EnsembleScoring
from engines.recommender import Recommender
from engines.selection.filters import conditions, objections


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine says of the item. `cause`: why it says nothing.

    `rank` counts from 1 among the `candidates` that pass the filters (and the item itself). `contributions` sum to `score`
    for ALS, content and the ensemble. `normalised` and `weight` are how the score enters the ensemble's, as their product; None where it
    enters none.
    """

    engine: str
    score: float | None = None
    rank: int | None = None
    candidates: int = 0
    normalised: float | None = None
    weight: float | None = None
    cause: str | None = None
    contributions: list[Reason] = []


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`shown`: the item is in the answer to this request, at `rank`. `removed_by`: every filter that keeps it out, in words.

    `method_used` is the engine that answers this user; `rank_if_allowed` the rank that the item has, or would have, with it.
    """

    user_id: str
    item_id: str
    shown: bool
    rank: int | None
    rank_if_allowed: int | None
    method_used: str
    removed_by: list[str]
    routing: str
    interaction_count: int
    model_version: str | None
    engines: list[EngineView]


def explain(recommender: Recommender, state: UserState, item_id: str, request: Request) -> Explanation:
    """Explain `item_id` for the user of `state`, as `recommender` would answer `request`. Raises ConfigurationError as it does."""
    answer = recommender.recommend(state, request)
    views = _with_shares(recommender, [_view(recommender, name, state, item_id, request) for name in router.CHAIN], state, item_id, request)
    by_name = {view.engine: view for view in views}
    rank = next((line.rank for line in answer.recommendations if line.item_id == item_id), None)
    return Explanation(
        user_id=state.user_id,
        item_id=item_id,
        shown=rank is not None,
        rank=rank,
        rank_if_allowed=by_name[answer.method_used].rank,
        method_used=answer.method_used,
        removed_by=removed_by(recommender, state, item_id, request),
        routing=f"{state.events} interactions: {router.describe(recommender.settings)}",
        interaction_count=state.events,
        model_version=recommender.bundle.version,
        engines=views,
    )


def removed_by(recommender: Recommender, state: UserState, item_id: str, request: Request) -> list[str]:
    """Every filter that keeps the item out of this user's answers, in words; none when it may be shown."""
    catalogue, filters = recommender.catalogue, request.filters
    found = []
    if item_id in catalogue.deleted:
        found.append("it was deleted from the catalogue")
    elif item_id not in catalogue.rows:
        found.append("neither the catalogue nor a model knows it")
    else:
        found += objections(catalogue.get(item_id), conditions(request))
    if filters.exclude_seen and any(event.item_id == item_id for event in state.history):
        found.append("the user has already interacted with it")
    if item_id in filters.exclude_items:
        found.append("the request excludes it by its id")
    return found


def _view(recommender: Recommender, name: str, state: UserState, item_id: str, request: Request) -> EngineView:
    if cause := recommender.unavailable(name):
        return EngineView(engine=name, cause=cause)
    row = recommender.catalogue.rows.get(item_id)
    if row is None:
        return EngineView(engine=name, cause="the item is not known")
    scoring = _scoring(recommender, name, state, request)
    if isinstance(scoring, str):
        return EngineView(engine=name, cause=scoring)
    allowed = eligible(recommender.catalogue, state, request)
    allowed[row] = True
    rank = scoring.rank(row, allowed)
    candidates = int(np.count_nonzero(allowed & np.isfinite(scoring.scores)))
    if rank is None:
        return EngineView(engine=name, candidates=candidates, cause="the engine finds nothing that speaks for the item")
    return EngineView(
        engine=name, score=float(scoring.scores[row]), rank=rank, candidates=candidates, contributions=scoring.contributions(row)
    )


def _with_shares(recommender: Recommender, views: list[EngineView], state: UserState, item_id: str, request: Request) -> list[EngineView]:
    """The views, those of the ensemble's parts with how they enter it."""
    row = recommender.catalogue.rows.get(item_id)
    if row is None or recommender.unavailable(EnsembleEngine.name):
        return views
    scoring = _scoring(recommender, EnsembleEngine.name, state, request)
    if not isinstance(scoring, EnsembleScoring):
        return views
    return [
        msgspec.structs.replace(view, normalised=part.normalised, weight=part.weight) if (part := scoring.part(view.engine, row)) else view
        for view in views
    ]


def _scoring(recommender: Recommender, name: str, state: UserState, request: Request) -> Scoring | str:
    """What engine `name` makes of the user, or why nothing."""
    try:
        return recommender.engines[name].score(state, request)
    except NotApplicable as nothing:
        return str(nothing)
    except Exception as error:  # noqa: BLE001 - a broken engine is part of the explanation: answers go on without it, too
        structlog.get_logger("engines").exception("engine failed", engine=name, model_version=recommender.bundle.version)
        return f"failed with {type(error).__name__}; the log has the traceback"
