"""Serves the page: `/` as HTML for browsers and as JSON for programs, and its files.

The page holds no data: its modules ask the routes below /api/, with the key that somebody has typed
in, if reads need one. So `/` itself needs no key.
"""

from __future__ import annotations

from string import Template

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.errors import ApiError, json_response
from api.page.assets import Assets
from api.schemas.document import DocumentedApp
from api.service import Service
from core.version import VERSION

LINKS = {
    "documentation": "docs",
    "openapi": "openapi.json",
    "health": "health/ready",
    "metrics": "metrics",
    "models": "api/models",
}
"""Addresses below the page's own."""
_NO_OTHER_HOST = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Plotly sets styles by attributes, so styles may be inline; scripts may not."""
_REPORT_ALONE = (
    "sandbox allow-scripts; default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)
"""A report's own scripts run in an origin of their own, from which nothing can be asked or sent."""
_FRAME = "report-frame.html"
_SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_FOR_EVER = "public, max-age=31536000, immutable"


class Page:
    """The page and its files."""

    def __init__(self, service: Service) -> None:
        self._prefix = service.settings.api_root_path
        self._budget = service.worker.budget("page")
        self._assets = Assets()
        self._html = Template(self._assets.text("index.html")).substitute(
            base=f'<base href="{self._prefix}/">' if self._prefix else "",
            files=f"page/{self._assets.version}",
            version=VERSION,
        )

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        app.add_route("/", self.home, include_in_schema=False)
        app.add_route("/page/{version}/{name}", self.asset, include_in_schema=False)

    async def home(self, request: Request) -> Response:
        """The page for a browser; name, version and addresses for a program."""
        vary = {"vary": "accept"}
        if not prefers_html(request.headers.get("accept", "")):
            links = {name: f"{self._prefix}/{path}" for name, path in LINKS.items()}
            return json_response(
                {"name": "Eddyline", "version": VERSION, "links": links}, 200, vary
            )
        headers = _SAFE | vary | {"content-security-policy": _NO_OTHER_HOST}
        return Response(
            self._html,
            headers=headers | {"cache-control": "no-cache"},
            media_type="text/html",
        )

    async def asset(self, request: Request) -> Response:
        """One file. A page that is older than this process is sent to the files of now."""
        version, name = request.path_params["version"], request.path_params["name"]
        if name not in self._assets:
            raise ApiError(404, "not_found", f"the page has no file {name!r}")
        if version != self._assets.version:
            return RedirectResponse(f"../{self._assets.version}/{name}", 307)
        if self._assets.is_ready(name):
            file = self._assets.read(name)
        else:
            file = await self._budget.run(lambda: self._assets.read(name))
        headers = {**_SAFE, "cache-control": _FOR_EVER, "vary": "accept-encoding"}
        if name == _FRAME:
            headers["content-security-policy"] = _REPORT_ALONE
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(file.compressed, headers=headers, media_type=file.media_type)
        content = await self._budget.run(lambda: file.plain)
        return Response(content, headers=headers, media_type=file.media_type)


def prefers_html(accept: str) -> bool:
    """Whether the header Accept names HTML, and not JSON before it. `*/*` alone is a program."""
    quality: dict[str, float] = {}
    for part in accept.lower().split(","):
        media_type, *parameters = (text.strip() for text in part.split(";"))
        quality[media_type] = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality[media_type] = float(parameter[2:])
                except ValueError:
                    quality[media_type] = 0.0
    return quality.get("text/html", 0.0) > quality.get("application/json", 0.0)
