"""Explains what a user gets: what each engine would answer, and why an item is shown or not.

Both also for another history than the stored one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from api import after
from api.errors import json_response
from api.routes.inspection import changed_history
from api.routes.reads import PERSONAL, Reads, without_state
from api.routes.routing import BUDGET_ERRORS, Operation, add, path_id
from api.schemas.document import DocumentedApp
from api.schemas.preview import EngineAnswer, Preview
from api.schemas.read_query import query_parameters
from api.service import Service
from core.types import Recommendations, Request, UserState
from engines.explain import Explanation, explain
from engines.recommender import Recommender
from engines.router import CHAIN
from engines.selection.explore import METHOD

_PARAMETERS = [*query_parameters(*PERSONAL, "use_case"), *changed_history.PARAMETERS]


class _Read(NamedTuple):
    """What both routes answer from.

    `known`: the state was read, or has events of the request. `labels`: fields of the answer.
    """

    live: Recommender
    query: Request
    state: UserState
    known: bool
    labels: dict[str, Any]


class PreviewRoutes:
    """The routes `preview` and `explain`. They count no exposure, and no answer in the metrics."""

    def __init__(self, service: Service, reads: Reads) -> None:
        self._service, self._reads = service, reads
        self._preview_budget = service.worker.budget("preview")
        self._explain_budget = service.worker.budget("explain")

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/api/preview/{user_id}",
                handler=self.preview,
                answer=Preview,
                tag="recommendations",
                summary="What would a user get, and what from each engine?",
                parameters=_PARAMETERS,
                errors=BUDGET_ERRORS,
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/explain/{user_id}/{item_id}",
                handler=self.explain,
                answer=Explanation,
                tag="recommendations",
                summary="Why is an item shown to a user, or why not?",
                parameters=_PARAMETERS,
                errors=BUDGET_ERRORS,
            ),
        )

    async def preview(self, request: HttpRequest) -> Response:
        """The answer to the same request beside the answer of each engine alone.

        `event` and `without` change the history for this answer only: nothing is stored, and no
        answer counts in an experiment.
        """
        read = await self._read(request)
        live, query, state = read.live, read.query, read.state

        def compare() -> Preview:
            answer = (
                live.recommend(state, query)
                if read.known
                else without_state(live, state.user_id, query)
            )
            return Preview(
                user_id=state.user_id,
                interaction_count=state.events,
                routing=f"{state.events} interactions: {live.thresholds.explained}",
                answer=msgspec.structs.replace(answer, **read.labels),
                engines=[_alone(live, name, state, query) for name in CHAIN],
            )

        return json_response(await self._preview_budget.run(compare))

    async def explain(self, request: HttpRequest) -> Response:
        """The item's rank and the parts of its score; or the filter that excludes it, or why no
        engine has a score for it.

        `event` and `without` change the history for this answer only.
        """
        item_id = path_id(request, "item_id")
        read = await self._read(request)
        explanation = await self._explain_budget.run(
            lambda: explain(read.live, read.state, item_id, read.query)
        )
        return json_response(msgspec.structs.replace(explanation, **read.labels))

    async def _read(self, request: HttpRequest) -> _Read:
        user_id = path_id(request, "user_id")
        rest, token = after.split(request.scope["query_string"])
        rest, changes = changed_history.split(rest, self._service.settings.use_cases)
        query = self._reads.query(rest)
        state, stale = await self._service.user_state(user_id, token)
        live, variant = self._reads.of_user(user_id, query, state)
        changed = changes.apply(state or UserState(user_id=user_id))
        labels = {
            "variant": variant and variant.label,
            "stale": stale,
            "degraded": state is None or self._service.health.degraded,
        }
        return _Read(live, query, changed, state is not None or changed.events > 0, labels)


def _alone(live: Recommender, name: str, state: UserState, query: Request) -> EngineAnswer:
    """The part of an answer that engine `name` makes, without what others fill in."""
    answer: Recommendations = live.recommend(state, msgspec.structs.replace(query, engine=name))
    cause = next((entry.cause for entry in answer.fallbacks if entry.engine == name), None)
    lines = [line for line in answer.recommendations if line.method in (name, METHOD)]
    return EngineAnswer(engine=name, cause=cause, recommendations=lines)
