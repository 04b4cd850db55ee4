"""Answers which users would like an item, and which users an id may mean."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from api.errors import invalid, json_response
from api.live_view.trained_users import TrainedUserFiles
from api.routes.query import plain_query, whole_number
from api.routes.routing import BUDGET_ERRORS, Operation, add, path_id
from api.routes.similar_users import als_of, users_or_cause
from api.schemas.document import DocumentedApp
from api.schemas.item_details import ItemUser, ItemUsers, UserMatches
from api.service import Service
from core.types import Request, UserState
from engines.base import NotApplicable
from engines.recommender import Recommender
from models.als import Floats
from store.state.entities.histories import item_sets, with_events
from store.state.shards import Shards

MOST = 20
"""Users in an answer: each is answered once to see the item's rank."""
SPARE = 4
"""Candidates for each place, whose histories are read at once: those who have an event with the
item are left out.
"""
MOST_CANDIDATES = 400
"""Candidates at most: the best of a popular item have an event with it, all of them at times."""
MOST_MATCHES = 50
"""Users that a search names at most."""


class ItemUserRoutes:
    """The routes from an item to users, and from a text to users; both name users."""

    def __init__(self, service: Service, trained: TrainedUserFiles) -> None:
        self._service, self._trained = service, trained
        self._users_budget = service.worker.budget("item_users")
        self._search_budget = service.worker.budget("users_search")

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/api/items/{item_id}/users",
                handler=self.users,
                answer=ItemUsers,
                tag="recommendations",
                summary="Users who would like an item",
                parameters=[_limit(10, MOST)],
                errors=BUDGET_ERRORS,
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/users",
                handler=self.search,
                answer=UserMatches,
                tag="users",
                summary="Users whose id contains a text",
                parameters=[_TEXT, _limit(20, MOST_MATCHES)],
                errors=BUDGET_ERRORS,
            ),
        )

    async def users(self, request: HttpRequest) -> Response:
        """The users whose ALS vector scores the item highest, without those who have an event with
        it, and its rank in the answer that each would get now.

        Only users that the live bundle was trained on are compared. When there are none, `cause`
        says why.
        """
        item_id = path_id(request, "item_id")
        limit = whole_number(plain_query(request, "limit"), "limit", 10, MOST)
        live = self._service.live
        users, cause = await users_or_cause(self._service, self._keenest(live, item_id, limit))
        return json_response(
            ItemUsers(
                item_id=item_id,
                model_version=live.bundle.version,
                cause=cause,
                degraded=self._service.health.degraded,
                users=users,
            )
        )

    async def search(self, request: HttpRequest) -> Response:
        """Among the users that the live bundle was trained on; first those whose id begins with the
        text. A user who came later is not there, and has a page all the same.
        """
        values = plain_query(request, "q", "limit")
        text, limit = values.get("q", ""), whole_number(values, "limit", 20, MOST_MATCHES)
        if not text:
            raise invalid("q is missing: it is a part of the user's id")
        version = self._service.live.bundle.version
        matches = self._search_budget.run(lambda: self._trained.load(version).search(text, limit))
        users, cause = await users_or_cause(self._service, matches)
        return json_response(UserMatches(model_version=version, cause=cause, users=users))

    async def _keenest(self, live: Recommender, item_id: str, limit: int) -> list[ItemUser]:
        """Raises NotApplicable, ModelError, StoreError, ValueError, ApiError 429."""
        factors = als_of(live).item_factors(item_id)
        version = live.bundle.version
        scores = await self._users_budget.run(
            lambda: self._compare(version, item_id, factors, limit)
        )
        return await self._with_ranks(live, item_id, scores)

    def _compare(
        self, version: str | None, item_id: str, factors: Floats, limit: int
    ) -> dict[str, float]:
        """User -> score. Runs in the worker's thread. Raises NotApplicable: there is none."""
        settings = self._service.settings
        scores = dict(self._trained.load(version).keenest(factors, MOST_CANDIDATES))
        candidates, new = list(scores), list[str]()
        with Shards(settings, settings.api_redis_timeout_s) as shards:
            while candidates and len(new) < limit:
                users = with_events(shards, candidates[: SPARE * limit])
                items = item_sets(shards, users, settings.history_cap)
                new += [name for name, had in zip(users, items, strict=True) if item_id not in had]
                candidates = candidates[SPARE * limit :]
        if not new:
            raise NotApplicable(
                f"of the {len(scores)} users whose vector scores {item_id} highest, each has an "
                "event with it or was deleted"
                if scores
                else f"no user's vector scores {item_id} above 0"
            )
        return {name: scores[name] for name in new[:limit]}

    async def _with_ranks(
        self, live: Recommender, item_id: str, scores: dict[str, float]
    ) -> list[ItemUser]:
        """Each user with the item's rank in the answer to them now."""
        states = await asyncio.gather(*(self._service.user_state(name) for name in scores))
        request = Request(limit=self._service.settings.api_max_limit, reasons=False, at=time.time())

        def rank(state: UserState | None) -> int | None:
            lines = live.recommend(state, request).recommendations if state is not None else []
            return next((line.rank for line in lines if line.item_id == item_id), None)

        ranks = await self._users_budget.run(lambda: [rank(state) for state, _ in states])
        return [
            ItemUser(user_id=name, score=score, shown_at=shown_at)
            for (name, score), shown_at in zip(scores.items(), ranks, strict=True)
        ]


_TEXT = {
    "name": "q",
    "in": "query",
    "required": True,
    "schema": {"type": "string"},
    "description": "a part of the id; upper and lower case differ",
    "example": "42",
}


def _limit(default: int, most: int) -> dict[str, object]:
    return {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": most, "default": default},
        "description": "users in the answer",
    }
