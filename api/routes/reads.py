"""Answers reads: recommendations for a user, similar and popular items.

A read parses the query string, reads the user's state in one round trip, and calls the live
recommender.
"""

from __future__ import annotations

import time
from functools import lru_cache

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from api import after
from api.errors import ApiError, invalid, json_response
from api.routes.query import Query
from api.routes.routing import READ_ERRORS, Operation, add, path_id
from api.schemas.answers import ItemList
from api.schemas.document import DocumentedApp
from api.schemas.read_query import query_parameters
from api.service import Service
from core.experiments import Variant, recommendation_id
from core.types import Fallback, Recommendations, Request, UseCase, UserState
from engines.recommender import Recommender
from engines.router import CHAIN

FILTERS = ("limit", "category", "item_type", "exclude", "available_only", "reasons", "attr")
PERSONAL = (*FILTERS, "include_seen", "engine", "diversity", "explore", "after")
CACHED_QUERIES = 1024
"""Parsed query strings in the cache: applications repeat the same few, and the catalogue caches the
mask of a parsed one.
"""
_NOBODY = UserState(user_id="")


class Reads:
    """The reading routes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._use_cases = service.settings.use_cases
        self._cached_request = lru_cache(CACHED_QUERIES)(self._parse)

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`; the most used first, because routes are tried in turn."""
        tag, known = "recommendations", ", ".join(f"`{path}`" for path in self._use_cases.by_path)
        add(
            app,
            Operation(
                method="GET",
                path="/api/recommendations/{item_type}/for-{role}/{user_id}",
                handler=self.for_use_case,
                answer=Recommendations,
                tag=tag,
                summary="Recommendations for a user in a use case",
                parameters=query_parameters(*PERSONAL),
                errors={**READ_ERRORS, 404: f"no such use case; this server has {known}"},
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/recommendations/{user_id}",
                handler=self.for_user,
                answer=Recommendations,
                tag=tag,
                summary="Recommendations for a user",
                parameters=query_parameters(*PERSONAL, "use_case"),
                errors=READ_ERRORS,
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/items/{item_id}/similar",
                handler=self.similar,
                answer=ItemList,
                tag=tag,
                summary="Items like this one",
                parameters=query_parameters(*FILTERS, "use_case"),
                errors=READ_ERRORS,
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/popular",
                handler=self.popular,
                answer=ItemList,
                tag=tag,
                summary="What is popular now, or was in the last hour, day or week",
                parameters=query_parameters(*FILTERS, "use_case", "window"),
                errors=READ_ERRORS,
            ),
        )

    async def for_use_case(self, request: HttpRequest) -> Response:
        """Items for the user in a configured use case: a role that looks for a kind of item, with
        its own weights and filters.

        The user's live number of interactions decides the engine; the next engine fills the places
        that it cannot fill, and `fallbacks` says so. An unknown user gets popular items.
        """
        path = f"{request.path_params['item_type']}/for-{request.path_params['role']}"
        use_case = self._use_cases.by_path.get(path)
        if use_case is None:
            raise ApiError(
                404,
                "unknown_use_case",
                (
                    f"there is no use case {path!r}; this server has "
                    f"{', '.join(self._use_cases.by_path)}"
                ),
            )
        return await self._personal(request, PERSONAL, use_case)

    async def for_user(self, request: HttpRequest) -> Response:
        """The same without a use case, for items of every type; `use_case` names one."""
        return await self._personal(request, (*PERSONAL, "use_case"), None)

    async def similar(self, request: HttpRequest) -> Response:
        """Items with interactions of the same users, or else with similar content.

        An unknown item has none.
        """
        item_id = path_id(request, "item_id")
        query = self._cached_request(request.scope["query_string"], (*FILTERS, "use_case"), None)
        return self._items(self._service.live.similar(item_id, query))

    async def popular(self, request: HttpRequest) -> Response:
        """The most popular items, in a use case or in all.

        The score is the weight of an item's events, each halved every POPULARITY_HALF_LIFE_DAYS.
        With `window` it is the weight of the events in that window; items without one follow with a
        score of 0, in the order of all time.
        """
        query = self._cached_request(
            request.scope["query_string"], (*FILTERS, "use_case", "window"), None
        )
        live = self._service.live
        answer = live.recommend(
            _NOBODY, msgspec.structs.replace(query, engine="popular", diversity=0.0, explore=0.0)
        )
        if query.window is not None and query.window not in live.windows:
            unknown = Fallback(
                engine="popular",
                cause=f"the last {query.window} is not read from Redis yet: this is of all time",
            )
            answer = msgspec.structs.replace(answer, fallbacks=[unknown, *answer.fallbacks])
        return self._items(answer)

    def query(self, query_string: bytes) -> Request:
        """The request of a personal read, as of now. Raises ApiError 422."""
        return _now(self._cached_request(query_string, (*PERSONAL, "use_case"), None))

    async def _personal(
        self, request: HttpRequest, accepted: tuple[str, ...], use_case: UseCase | None
    ) -> Response:
        user_id = path_id(request, "user_id")
        query_string, token = after.split(request.scope["query_string"])
        query = _now(
            self._cached_request(query_string, accepted, use_case.name if use_case else None)
        )
        state, stale = await self._service.user_state(user_id, token)
        # read once, after the wait: the whole answer comes from this object
        live, variant = self.of_user(user_id, query, state)
        answer = (
            without_state(live, user_id, query) if state is None else live.recommend(state, query)
        )
        degraded = state is None or self._service.health.degraded
        answer = msgspec.structs.replace(
            answer,
            recommendation_id=recommendation_id(variant),
            variant=variant and variant.label,
            stale=stale,
            degraded=degraded,
        )
        if variant is not None:
            self._service.view.exposures.add(variant, user_id)
        self._service.metrics.count_answer(answer.method_used, degraded)
        if state is not None and (freshness := live.vector_of(state)) is not None:
            self._service.metrics.count_vector(freshness)
            self._service.view.read_users.add(user_id)
        return json_response(answer)

    def of_user(
        self, user_id: str, query: Request, state: UserState | None
    ) -> tuple[Recommender, Variant | None]:
        """The recommender that answers this request, and its variant.

        A request that names an engine, or whose user cannot be read, takes part in no experiment.
        """
        if state is None or query.engine is not None:
            return self._service.live, None
        return self._service.view.of_user(user_id, query.use_case.name if query.use_case else None)

    def _items(self, answer: Recommendations) -> Response:
        return json_response(
            ItemList(
                method_used=answer.method_used,
                fallbacks=answer.fallbacks,
                model_version=answer.model_version,
                degraded=self._service.health.degraded,
                recommendations=answer.recommendations,
            )
        )

    def _parse(
        self, query_string: bytes, accepted: tuple[str, ...], use_case_name: str | None
    ) -> Request:
        query = Query(query_string, accepted)
        name = use_case_name or query.scalar("use_case")
        if name is not None and name not in self._use_cases.by_name:
            raise invalid(
                f"use_case {name!r} is not one of "
                f"{', '.join(self._use_cases.by_name) or 'none: none is configured'}"
            )
        return query.request(
            self._service.settings.api_max_limit, self._use_cases.by_name[name] if name else None
        )


def _now(query: Request) -> Request:
    return msgspec.structs.replace(query, at=time.time())


def without_state(live: Recommender, user_id: str, query: Request) -> Recommendations:
    """An answer for a user whose state cannot be read: popular items, and why no engine before."""
    answer = live.recommend(
        UserState(user_id=user_id), msgspec.structs.replace(query, engine="popular")
    )
    skipped = CHAIN[CHAIN.index(query.engine) if query.engine else 0 : CHAIN.index("popular")]
    causes = [
        Fallback(
            engine=name, cause=live.unavailable(name) or "the user's history cannot be read now"
        )
        for name in skipped
    ]
    return msgspec.structs.replace(answer, fallbacks=[*causes, *answer.fallbacks])
