"""Answers what is stored about a user, for the user and for operators."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import after
from api.errors import json_response
from api.routes.query import Query
from api.routes.routing import READ_ERRORS, Operation, add, path_id
from api.schemas.answers import UserAnswer
from api.schemas.bodies import User
from api.schemas.document import DocumentedApp
from api.schemas.read_query import query_parameters
from api.service import Service
from core.types import UserState
from engines import router


class Users:
    """The route that reads a user."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def register(self, app: DocumentedApp) -> None:
        """Add the route to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/api/users/{user_id}",
                handler=self.user,
                answer=UserAnswer,
                tag="users",
                summary="What is stored about a user, and which engine answers them",
                parameters=query_parameters("after"),
                errors=READ_ERRORS,
            ),
        )

    async def user(self, request: Request) -> Response:
        """Counters, latest history and declared profile, and the engine for this number of
        interactions.

        An unknown user has no interactions. While Redis is down, no user is known, and `degraded`
        is true.
        """
        user_id = path_id(request, "user_id")
        rest, token = after.split(request.scope["query_string"])
        Query(rest, ("after",))
        read, stale = await self._service.user_state(user_id, token)
        state = read or UserState(user_id=user_id)
        engine, why = self._engine(state, read is not None)
        declared = state.profile
        profile = (
            None if declared is None else msgspec.convert(declared, User, from_attributes=True)
        )
        return json_response(
            UserAnswer(
                user_id=user_id,
                known=bool(state.events or state.history or state.profile),
                interaction_count=state.events,
                counts=state.counts,
                first_seen=state.first_seen,
                history=state.history,
                profile=profile,
                engine=engine,
                why=why,
                stale=stale,
                degraded=read is None or self._service.health.degraded,
            )
        )

    def _engine(self, state: UserState, known: bool) -> tuple[str, str]:
        """The first engine of the chain that is available, and why it answers."""
        if not known:
            return (
                "popular",
                (
                    f"the user's history cannot be read: "
                    f"{self._service.health.failure('redis') or 'see the log'}"
                ),
            )
        live, _ = self._service.view.of_user(state.user_id, None)
        why = f"{state.events} interactions: {live.thresholds.explained}"
        for name in router.CHAIN[router.CHAIN.index(router.route(state.events, live.thresholds)) :]:
            cause = live.unavailable(name)
            if cause is None:
                return name, why
            why += f"; {name}: {cause}"
        return "popular", why
