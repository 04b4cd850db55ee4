"""Reads the catalogue: one entry, or page after page."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import after
from api.errors import ApiError, invalid, json_response, unavailable
from api.routes.query import Query, plain_query, whole_number
from api.routes.routing import READ_ERRORS, Operation, add, path_id
from api.schemas.answers import ItemAnswer, ItemPage
from api.schemas.bodies import Item
from api.schemas.document import DocumentedApp
from api.schemas.read_query import query_parameters
from api.service import Service
from core.errors import StoreError
from engines.selection.search import search

PAGE, MAX_PAGE = 100, 1000
"""Items in one page: by default, and at most."""
MAX_MATCHES = 100
"""Items that a search answers at most."""


class Items:
    """The routes that read the catalogue."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._search_budget = service.worker.budget("items_search")

    def register(self, app: DocumentedApp) -> None:
        """Add the routes to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/api/items/{item_id}",
                handler=self.item,
                answer=ItemAnswer,
                tag="catalogue",
                summary="The catalogue entry of one item",
                parameters=query_parameters("after"),
                errors={**READ_ERRORS, 404: "the catalogue has no such item"},
            ),
        )
        add(
            app,
            Operation(
                method="GET",
                path="/api/items",
                handler=self.page,
                answer=ItemPage,
                tag="catalogue",
                summary="The catalogue, page after page",
                parameters=_PAGE_PARAMETERS,
                errors={
                    **READ_ERRORS,
                    429: "too many searches at once: send it again after `Retry-After` s",
                    503: "Redis, which holds the catalogue, does not answer",
                },
            ),
        )

    async def item(self, request: Request) -> Response:
        """The entry of an item as this server's answers use it, also where it is not available.

        While Redis is down it is the entry as last seen, and `degraded` is true.
        """
        item_id = path_id(request, "item_id")
        rest, token = after.split(request.scope["query_string"])
        Query(rest, ("after",))
        stale = await self._service.stale(token)
        entry = self._service.live.catalogue.get(item_id)
        if entry is None:
            raise ApiError(404, "not_found", f"the catalogue has no item {item_id!r}")
        item = msgspec.convert(entry, Item, from_attributes=True)
        return json_response(
            ItemAnswer(item=item, stale=stale, degraded=self._service.health.degraded)
        )

    async def page(self, request: Request) -> Response:
        """About `limit` items from `cursor` on, in no particular order.

        Read on with the `cursor` of each answer until it is null. Items that are there the whole
        time are in one page at least; a change during the listing may show an item twice. With `q`
        it is the items with all these words instead, best first, as this server's answers use them.
        """
        values = plain_query(request, "cursor", "limit", "q")
        if "q" in values:
            return await self._search(values)
        cursor, limit = _cursor(values), whole_number(values, "limit", PAGE, MAX_PAGE)
        try:
            following, items = await self._service.entries.items(cursor, limit)
        except StoreError as error:
            raise unavailable("store_unavailable", f"listing failed: {error}") from None
        page = [msgspec.convert(entry, Item, from_attributes=True) for entry in items]
        return json_response(ItemPage(items=page, cursor=str(following) if following else None))

    async def _search(self, values: Mapping[str, str]) -> Response:
        text, limit = values["q"], whole_number(values, "limit", PAGE, MAX_MATCHES)
        if "cursor" in values:
            raise invalid("q has no further pages: leave cursor out")
        catalogue = self._service.live.catalogue
        items = await self._search_budget.run(lambda: search(catalogue, text, limit))
        matches = [msgspec.convert(entry, Item, from_attributes=True) for entry in items]
        return json_response(ItemPage(items=matches, cursor=None))


def _cursor(values: Mapping[str, str]) -> int:
    """Raises ApiError 422."""
    cursor = values.get("cursor", "") or "0"
    if not (cursor.isascii() and cursor.isdigit() and int(cursor) < 1 << 64):
        raise invalid(f"cursor must be one that an answer named, not {cursor[:100]!r}")
    return int(cursor)


_PAGE_PARAMETERS = [
    {
        "name": "q",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "words that must occur in id, title, categories, tags, attributes or text; "
        f"at most {MAX_MATCHES} items, one page",
        "example": "ledger",
    },
    {
        "name": "cursor",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "`cursor` of the page before; without it, the first page",
    },
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
        "description": "about how many items; a small catalogue comes in one page",
    },
]
