"""Serves the API's documentation: /openapi.json and the page /docs that shows it.

The page names its document, script and style by relative URLs: it works below any prefix, and loads
nothing from another host. Script and style come from the package fastapi-offline.
"""

from __future__ import annotations

import gzip
from importlib import resources

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError
from api.schemas.document import DocumentedApp
from api.service import Service
from core.codec import encode_json

PATH = "/openapi.json"
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
"""Files of the page, with their media types."""
_ASSET_HEADERS = {"cache-control": "public, max-age=86400", "vary": "accept-encoding"}
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:"
    )
}
"""The browser itself refuses what another host would have to send."""


class OpenApi:
    """The document is made at the first request, which takes about 80 ms, and cached as bytes.

    FastAPI's own route encodes it for each request.
    """

    def __init__(self, service: Service) -> None:
        self._budget = service.worker.budget("openapi")
        self._schema: bytes | None = None
        self._packed: dict[str, bytes] = {}

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} API",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
        )
        page.headers.update(_PAGE_HEADERS)

        async def schema(_request: Request) -> Response:
            if self._schema is None:
                self._schema = await self._budget.run(lambda: encode_json(app.openapi()))
            return Response(self._schema, media_type="application/json")

        async def docs(_request: Request) -> Response:
            return page

        async def asset(request: Request) -> Response:
            name = request.path_params["name"]
            if name not in ASSETS:
                raise ApiError(404, "not_found", f"/docs has no file {name!r}")
            if name not in self._packed:
                self._packed[name] = await self._budget.run(lambda: _packed(name))
            body, headers = self._packed[name], _ASSET_HEADERS
            if "gzip" in request.headers.get("accept-encoding", ""):
                headers = {**headers, "content-encoding": "gzip"}
            else:
                body = await self._budget.run(lambda: gzip.decompress(self._packed[name]))
            return Response(body, headers=headers, media_type=ASSETS[name])

        app.add_route(PATH, schema, include_in_schema=False)
        app.add_route("/docs", docs, include_in_schema=False)
        app.add_route("/docs/{name}", asset, include_in_schema=False)


def _packed(name: str) -> bytes:
    """A file of the page, compressed."""
    file = resources.files("fastapi_offline") / "static" / name
    return gzip.compress(file.read_bytes())
