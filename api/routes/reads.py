"""Reads: query string to Request, one round trip for the user's state, the live Recommender,
JSON.
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
from api.routes.routing import Operation, add, path_id
from api.schemas.answers import ItemList
from api.schemas.document import DocumentedApp
from api.schemas.read_query import query_parameters
from api.service import Service
from core.experiments import Variant, recommendation_id
from core.types import Fallback, Recommendations, Request, UseCase, UserState
from engines.explain import Explanation, explain
from engines.recommender import Recommender
from engines.router import CHAIN

FILTERS = ("limit", "category", "item_type", "exclude", "available_only", "reasons", "attr")
PERSONAL = (*FILTERS, "include_seen", "engine", "diversity", "explore", "after")
QUERIES_KEPT = 1024
"""Parsed query strings kept: applications send the same few again and again, and a parsed one also
finds its mask in the catalogue.
"""
_ERRORS = {
    401: "this server wants a key for reads",
    422: "a parameter is not acceptable; `detail` names it",
}
_NOBODY = UserState(user_id="")


class Reads:
    """The reading routes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._use_cases = service.settings.use_cases
        self._explain_budget = service.worker.budget("explain")
        self._asked = lru_cache(QUERIES_KEPT)(self._parsed)

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`; the hottest first, as routes are tried in turn."""
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
                errors={**_ERRORS, 404: f"no such use case; this server has {known}"},
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
                errors=_ERRORS,
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
                errors=_ERRORS,
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
                errors=_ERRORS,
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/explain/{user_id}/{item_id}",
                handler=self.explain,
                answer=Explanation,
                tag=tag,
                summary="Why is an item shown to a user, or why not?",
                parameters=query_parameters(*PERSONAL, "use_case"),
                errors={
                    **_ERRORS,
                    429: "too many such requests at once: send it again after `Retry-After` s",
                },
            ),
        )

    async def for_use_case(self, request: HttpRequest) -> Response:
        """What the user would like next, in a configured use case: a role looking for a kind of
        item, with its own weights and filters.

        The engine follows from the user's live count of interactions; what it cannot fill comes
        from the next one, labelled in `fallbacks`. An unknown user is answered with what is
        popular.
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
        """The same without a use case, over items of every type; `use_case` names one."""
        return await self._personal(request, (*PERSONAL, "use_case"), None)

    async def similar(self, request: HttpRequest) -> Response:
        """Items that the same users chose, or else with the same content.

        An item that nobody knows has none.
        """
        item_id = path_id(request, "item_id")
        asked = self._asked(request.scope["query_string"], (*FILTERS, "use_case"), None)
        return self._items(self._service.live.similar(item_id, asked))

    async def popular(self, request: HttpRequest) -> Response:
        """What others choose now, by use case or over all. A score is a weight of events that
        halves with POPULARITY_HALF_LIFE_DAYS.

        With `window` it is the weight of the events within it; items without one follow with a
        score of 0, as they would without `window`.
        """
        asked = self._asked(request.scope["query_string"], (*FILTERS, "use_case", "window"), None)
        live = self._service.live
        answer = live.recommend(
            _NOBODY, msgspec.structs.replace(asked, engine="popular", diversity=0.0, explore=0.0)
        )
        if asked.window is not None and asked.window not in live.windows:
            unknown = Fallback(
                engine="popular",
                cause=f"the last {asked.window} is not read from Redis yet: this is over all time",
            )
            answer = msgspec.structs.replace(answer, fallbacks=[unknown, *answer.fallbacks])
        return self._items(answer)

    async def explain(self, request: HttpRequest) -> Response:
        """The item's rank and what made its score; or the filter that removed it, or why no engine
        has an opinion on it.
        """
        user_id, item_id = path_id(request, "user_id"), path_id(request, "item_id")
        query_string, token = after.taken(request.scope["query_string"])
        asked = _now(self._asked(query_string, (*PERSONAL, "use_case"), None))
        state, stale = await self._service.user_state(user_id, token)
        live, variant = self._of_user(user_id, asked, state)
        known = state or UserState(user_id=user_id)
        explanation = await self._explain_budget.run(lambda: explain(live, known, item_id, asked))
        return json_response(
            msgspec.structs.replace(
                explanation,
                variant=variant and variant.label,
                stale=stale,
                degraded=state is None or self._service.health.degraded,
            )
        )

    async def _personal(
        self, request: HttpRequest, accepted: tuple[str, ...], use_case: UseCase | None
    ) -> Response:
        user_id = path_id(request, "user_id")
        query_string, token = after.taken(request.scope["query_string"])
        asked = _now(self._asked(query_string, accepted, use_case.name if use_case else None))
        state, stale = await self._service.user_state(user_id, token)
        # once, and after the wait: the whole answer comes from this object
        live, variant = self._of_user(user_id, asked, state)
        answer = unread(live, user_id, asked) if state is None else live.recommend(state, asked)
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
        self._service.metrics.answer(answer.method_used, degraded)
        if state is not None and (found := live.vector_of(state)) is not None:
            self._service.metrics.vector(found)
        return json_response(answer)

    def _of_user(
        self, user_id: str, asked: Request, state: UserState | None
    ) -> tuple[Recommender, Variant | None]:
        """What answers this request.

        One that names an engine, or whose user cannot be read, is no experiment's.
        """
        if state is None or asked.engine is not None:
            return self._service.live, None
        return self._service.view.of_user(user_id, asked.use_case.name if asked.use_case else None)

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

    def _parsed(
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


def _now(asked: Request) -> Request:
    return msgspec.structs.replace(asked, at=time.time())


def unread(live: Recommender, user_id: str, asked: Request) -> Recommendations:
    """An answer for a user whose state cannot be read: what is popular, with every engine that
    would have been asked named and why not.
    """
    answer = live.recommend(
        UserState(user_id=user_id), msgspec.structs.replace(asked, engine="popular")
    )
    skipped = CHAIN[CHAIN.index(asked.engine) if asked.engine else 0 : CHAIN.index("popular")]
    causes = [
        Fallback(
            engine=name, cause=live.unavailable(name) or "the user's history cannot be read now"
        )
        for name in skipped
    ]
    return msgspec.structs.replace(answer, fallbacks=[*causes, *answer.fallbacks])
