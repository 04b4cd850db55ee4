"""Serves the evaluation report of a bundle: `GET /api/models/{version}/report`.

A report is a whole page with scripts. The browser runs it in an origin of its own, where
it can ask and send nothing.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError
from api.routes.routing import path_id
from api.schemas.document import DocumentedApp
from api.service import Service
from core.errors import ModelCorrupt, ModelMissing
from models import listing
from models.registry import Registry

_HEADERS = {
    "content-security-policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Reports:
    """The route of the reports."""

    def __init__(self, service: Service) -> None:
        self._registry = Registry(service.settings.models_path)

    def register(self, app: DocumentedApp) -> None:
        """Add the route to `app`."""
        app.add_route("/api/models/{version}/report", self.show, include_in_schema=False)

    async def show(self, request: Request) -> Response:
        """The report as HTML. Raises ApiError."""
        version = path_id(request, "version")
        try:
            html = await asyncio.to_thread(listing.report, self._registry, version)
        except ModelMissing as error:
            raise ApiError(404, "no_report", str(error)) from None
        except ModelCorrupt as error:
            raise ApiError(409, "model_corrupt", str(error)) from None
        return Response(html, headers=_HEADERS, media_type="text/html")
