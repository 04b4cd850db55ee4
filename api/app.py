"""Makes the ASGI app: the only place that connects the parts of the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from api.errors import ApiError, on_api_error, on_bad_event, on_http_exception
from api.live_view.trained_users import TrainedUserFiles
from api.middleware.guard import Guard
from api.page.live import Live
from api.page.reports import Reports
from api.page.routes import Page
from api.routes.entries import item_entries, user_entries
from api.routes.inspection.dead_letters import DeadLetterRoutes
from api.routes.inspection.experiments import ExperimentRoutes
from api.routes.inspection.item_activity import ItemActivityRoutes
from api.routes.inspection.item_users import ItemUserRoutes
from api.routes.inspection.preview import PreviewRoutes
from api.routes.items import Items
from api.routes.models import Models
from api.routes.openapi import OpenApi
from api.routes.reads import Reads
from api.routes.similar_users import SimilarUserRoutes
from api.routes.status import Status
from api.routes.users import Users
from api.routes.writes import Writes
from api.schemas.document import DocumentedApp
from api.service import Service
from core.errors import BadEvent
from core.settings import Settings
from core.version import VERSION

_log = structlog.get_logger(__name__)
GZIP_LEVEL = 1
"""Of 1 to 9. Level 6 makes 100 items an eighth smaller, in three times the time (0.2 ms)."""
_DESCRIPTION = """Recommendations that include a user's last event within milliseconds.

Reads are open unless the server sets `API_READ_KEYS`. Writes and deletes need one of its
`API_KEYS`, changes of the live model one of its `API_ADMIN_KEYS`, sent as `X-API-Key` or as
`Authorization: Bearer`. Every error has the shape `{"error": "<word>", "detail": "<sentence>"}`. An
id may contain any printable character; in a path it is percent-encoded (`/` as `%2F`). Behind a
proxy that decodes paths, write `-` in its place and the id in the query string: `?user_id=` or
`?item_id=`.
"""
_TAGS = [
    {
        "name": "recommendations",
        "description": (
            "Reads. An unknown user gets an answer too, and a part that is down makes it "
            "`degraded: true`, not an error."
        ),
    },
    {"name": "events", "description": "Publish interactions without a Kafka client."},
    {"name": "catalogue", "description": "What can be recommended."},
    {"name": "users", "description": "What users declare, and what is stored about them."},
    {
        "name": "models",
        "description": "The published versions, the live one, and the last retrain.",
    },
    {"name": "operations", "description": "Health and metrics; they never need a key."},
]


def create_app(settings: Settings) -> DocumentedApp:
    """The ASGI app. It connects when its lifespan begins. Raises ConfigurationError."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_app: DocumentedApp) -> AsyncIterator[None]:
        await service.start()
        live = service.live
        _log.info(
            "api_started",
            routing=str(live.thresholds),
            router=live.thresholds.why,
            models=sorted(live.bundle.parts),
            model_version=live.bundle.version,
            missing=dict(live.bundle.missing),
            catalogue_items=service.view.catalogue_items,
            writes="keyed" if settings.api_keys else "off",
            reads="keyed" if settings.api_read_keys else "open",
            degraded=service.health.causes,
        )
        yield
        await service.stop()

    handlers: dict[Any, Any] = {
        ApiError: on_api_error,
        BadEvent: on_bad_event,
        HTTPException: on_http_exception,
    }
    app = DocumentedApp(
        title="Eddyline",
        version=VERSION,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        lifespan=lifespan,
        openapi_url=None,  # see api/routes/openapi.py
        servers=[{"url": settings.api_root_path}] if settings.api_root_path else None,
        redirect_slashes=False,
        exception_handlers=handlers,
    )
    # in the order in which requests are compared with them
    reads = Reads(service)
    reads.register(app)
    PreviewRoutes(service, reads).register(app)
    trained = TrainedUserFiles(settings)
    SimilarUserRoutes(service, trained).register(app)
    ItemUserRoutes(service, trained).register(app)
    for routes in (
        Users,
        Items,
        ItemActivityRoutes,
        Writes,
        item_entries,
        user_entries,
        Models,
        ExperimentRoutes,
        DeadLetterRoutes,
        Status,
        OpenApi,
        Page,
        Live,
        Reports,
    ):
        routes(service).register(app)
    _add_middleware(app, service)
    app.state.service = service
    return app


def _add_middleware(app: DocumentedApp, service: Service) -> None:
    """Wrap the routes; what is added last sees a request first."""
    settings = service.settings
    if settings.api_gzip_bytes:
        app.add_middleware(
            GZipMiddleware, minimum_size=settings.api_gzip_bytes, compresslevel=GZIP_LEVEL
        )
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    if settings.api_cors_origins:
        # outside of the guard: a browser sends its preflight without a key, and reads errors too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api_cors_origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("authorization", "content-type", "x-api-key"),
            expose_headers=("retry-after",),
        )
