"""Serves the API's documentation: /openapi.json and the page /docs that shows it."""

from __future__ import annotations

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response

from api.schemas.document import DocumentedApp
from api.service import Service
from core.codec import encode_json

PATH = "/openapi.json"


class OpenApi:
    """The document is made at the first request, which takes about 80 ms, and cached as bytes.

    FastAPI's own route encodes it for each request.
    """

    def __init__(self, service: Service) -> None:
        self._budget = service.worker.budget("openapi")
        self._schema: bytes | None = None

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        page = get_swagger_ui_html(openapi_url=PATH, title=f"{app.title} API")

        async def schema(_request: Request) -> Response:
            if self._schema is None:
                self._schema = await self._budget.run(lambda: encode_json(app.openapi()))
            return Response(self._schema, media_type="application/json")

        async def docs(_request: Request) -> Response:
            return page

        app.add_route(PATH, schema, include_in_schema=False)
        app.add_route("/docs", docs, include_in_schema=False)
