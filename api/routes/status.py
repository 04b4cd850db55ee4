"""Answers health checks, and serves the metrics."""

from __future__ import annotations

import inspect

from starlette.requests import Request
from starlette.responses import Response

from api.errors import json_response
from api.metrics import CONTENT_TYPE
from api.routes.routing import Operation, add
from api.schemas.answers import Live, Missing, Ready
from api.schemas.document import DocumentedApp
from api.service import Service
from core.codec import encode_json

_ALIVE = encode_json(Live())


class Status:
    """The routes about the process itself."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._metrics_budget = service.worker.budget("metrics")

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/health/live",
                handler=self.alive,
                answer=Live,
                tag="operations",
                summary="Is the process up?",
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/health/ready",
                handler=self.ready,
                answer=Ready,
                tag="operations",
                summary="Can it answer, and what is missing?",
                errors={503: "nothing to answer from yet"},
            ),
        )
        app.router.add_api_route(
            "/metrics",
            self.metrics,
            methods=["GET"],
            tags=["operations"],
            summary="Metrics for Prometheus",
            response_class=Response,
            description=inspect.getdoc(self.metrics) or "",
            status_code=200,
            responses={
                200: {"content": {"text/plain": {"example": 'eddyline_api_up{part="redis"} 1.0'}}}
            },
        )

    async def alive(self, _request: Request) -> Response:
        """200 while the process answers at all."""
        return Response(_ALIVE, media_type="application/json")

    async def ready(self, _request: Request) -> Response:
        """200 as soon as there is a bundle or a catalogue to answer from; `missing` names the rest.

        It stays 200 while Redis or Kafka is away: answers are degraded then, and a load balancer
        that removed every process for that would leave no answer at all. Alert on `degraded`;
        require an empty `missing` in a deployment check.
        """
        service = self._service
        live = service.live
        causes = service.health.causes
        ready = live.bundle.version is not None or service.view.catalogue_items > 0
        missing = [
            Missing(part=part, cause=cause)
            for part, cause in {**dict(live.bundle.missing), **causes}.items()
        ]
        return json_response(
            Ready(
                ready=ready,
                degraded=bool(causes),
                model_version=live.bundle.version,
                models=sorted(live.bundle.parts),
                catalogue_items=service.view.catalogue_items,
                missing=missing,
            ),
            200 if ready else 503,
        )

    async def metrics(self, _request: Request) -> Response:
        """Requests, answers by engine, the state of each part and the age of the data, in
        Prometheus' text format.
        """
        return Response(
            await self._metrics_budget.run(self._service.render_metrics), media_type=CONTENT_TYPE
        )
