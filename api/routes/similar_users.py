"""Answers which users have similar interactions: compares the user's ALS vector as of now with the
vectors of the users that the live bundle was trained on.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from api import after
from api.errors import json_response
from api.live_view.trained_users import TrainedUserFiles
from api.routes.query import Query
from api.routes.routing import BUDGET_ERRORS, Operation, add, path_id
from api.schemas.answers import SimilarUser, SimilarUsers
from api.schemas.document import DocumentedApp
from api.schemas.read_query import query_parameters
from api.service import Service
from core.errors import ModelError, StoreError
from core.types import UserState
from engines.als import ALSEngine
from engines.base import NotApplicable
from engines.recommender import Recommender
from models.als import Floats
from store.state.entities.histories import item_sets, with_events
from store.state.shards import Shards

_User = TypeVar("_User")
MOST = 50
"""Users in an answer at most: the history of each is read."""
SPARE = 2
"""Candidates for each place: users that were deleted since the training are left out."""
SHARED = 5
"""Shared items in an answer, for each user."""


class SimilarUserRoutes:
    """The route of similar users.

    The worker's thread compares the trained users and reads up to 50 histories, with a budget and
    connections to Redis of its own.
    """

    def __init__(self, service: Service, trained: TrainedUserFiles) -> None:
        self._service, self._trained = service, trained
        self._budget = service.worker.budget("users_similar")
        self._shards: Shards | None = None

    def register(self, app: DocumentedApp) -> None:
        """Add the route to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/api/users/{user_id}/similar",
                handler=self.similar,
                answer=SimilarUsers,
                tag="users",
                summary="Users with similar interactions",
                parameters=query_parameters("limit", "after"),
                errors=BUDGET_ERRORS,
            ),
        )

    async def similar(self, request: Request) -> Response:
        """The nearest users by the cosine of ALS vectors.

        The vector of the user is as of now, the others' as of the training of the live bundle:
        users that came later are not among them. Deleted users are left out. When there are none,
        `cause` says why.
        """
        user_id = path_id(request, "user_id")
        rest, token = after.split(request.scope["query_string"])
        limit = (
            Query(rest, ("limit",)).request(min(MOST, self._service.settings.api_max_limit)).limit
        )
        read, stale = await self._service.user_state(user_id, token)
        live = self._service.live
        users, cause = await users_or_cause(self._service, self._nearest(live, read, limit))
        return json_response(
            SimilarUsers(
                user_id=user_id,
                interaction_count=read.events if read is not None else 0,
                model_version=live.bundle.version,
                cause=cause,
                stale=stale,
                degraded=read is None or self._service.health.degraded,
                users=users,
            )
        )

    async def _nearest(
        self, live: Recommender, state: UserState | None, limit: int
    ) -> list[SimilarUser]:
        """Raises NotApplicable, ModelError, StoreError, ValueError, ApiError 429."""
        if state is None:
            raise NotApplicable("the user's history cannot be read now")
        engine = als_of(live)
        vector = engine.fold(state.history, engine.use_cases).fold.vector
        return await self._budget.run(
            lambda: self._compare(live.bundle.version, state, vector, limit)
        )

    def _compare(
        self, version: str | None, state: UserState, vector: Floats, limit: int
    ) -> list[SimilarUser]:
        """The answer's users. Runs in the worker's thread, one at a time."""
        scores = dict(self._trained.load(version).nearest(vector, SPARE * limit + 1))
        scores.pop(state.user_id, None)
        settings = self._service.settings
        if self._shards is None:
            self._shards = Shards(settings, settings.api_redis_timeout_s)
        nearest = with_events(self._shards, list(scores))[:limit]
        histories = item_sets(self._shards, nearest, settings.history_cap)
        own_items = list(dict.fromkeys(event.item_id for event in reversed(state.history)))
        return [
            SimilarUser(
                user_id=user_id,
                score=scores[user_id],
                rank=rank,
                shared_items=[item_id for item_id in own_items if item_id in items][:SHARED],
            )
            for rank, (user_id, items) in enumerate(zip(nearest, histories, strict=True), 1)
        ]


async def users_or_cause(
    service: Service, work: Awaitable[list[_User]]
) -> tuple[list[_User], str | None]:
    """The users that `work` returns; or none, and why there are none. Raises ApiError."""
    try:
        return await work, None
    except (NotApplicable, ModelError, ValueError) as error:
        return [], str(error)
    except StoreError as error:
        service.health.mark_failed("redis", str(error))
        return [], "the users' histories cannot be read now"


def als_of(live: Recommender) -> ALSEngine:
    """The engine whose vectors are compared. Raises NotApplicable."""
    engine = live.engines.get(ALSEngine.name)
    if not isinstance(engine, ALSEngine):
        raise NotApplicable(live.unavailable(ALSEngine.name) or "there is no ALS engine")
    return engine
