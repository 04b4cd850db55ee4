"""Answers how popular an item is and was: the buckets that ingest counts, which Redis holds for a
week.
"""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response

from api.errors import ApiError, json_response, unavailable
from api.routes.query import plain_query
from api.routes.routing import READ_ERRORS, Operation, add, path_id
from api.schemas.document import DocumentedApp
from api.schemas.item_details import Activity, ItemActivity
from api.service import Service
from core.errors import StoreError
from store.state.entities.trending import Series, series_of_item
from store.state.keys import POPULAR_UNLABELLED
from store.state.shards import Shards


class ItemActivityRoutes:
    """The route about the activity of an item. A thread reads Redis: some hundred small commands in
    one round trip to each shard.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._names = [*service.settings.use_cases.by_name, POPULAR_UNLABELLED]

    def register(self, app: DocumentedApp) -> None:
        """Add the route to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/api/items/{item_id}/activity",
                handler=self.activity,
                answer=ItemActivity,
                tag="catalogue",
                summary="Popularity of an item over the last hour and week",
                errors={
                    **READ_ERRORS,
                    503: "Redis, which has the numbers, does not answer",
                },
            ),
        )

    async def activity(self, request: Request) -> Response:
        """The weight of the item's events by time, in each use case with some.

        Nothing older than a week is stored by time. An unknown item has no activity.
        """
        item_id = path_id(request, "item_id")
        plain_query(request)
        if (cause := self._service.health.failure("redis")) is not None:
            raise _unavailable(cause)
        try:
            series = await asyncio.to_thread(self._read, item_id)
        except StoreError as error:
            raise _unavailable(str(error)) from None
        popularity = {
            name: weight / entries[0][1]
            for name, entries in self._service.live.popularity.items()
            for entry, weight in entries
            if entry == item_id and weight > 0
        }
        return json_response(
            ItemActivity(
                item_id=item_id,
                popularity=popularity,
                hour={name: _activity(part) for name, part in series["hour"].items()},
                week={name: _activity(part) for name, part in series["week"].items()},
            )
        )

    def _read(self, item_id: str) -> dict[str, dict[str, Series]]:
        settings = self._service.settings
        with Shards(settings, settings.api_redis_timeout_s) as shards:
            return series_of_item(shards, self._names, item_id, time.time())


def _activity(series: Series) -> Activity:
    return Activity(start=series.start, seconds=series.seconds, weights=series.weights)


def _unavailable(cause: str) -> ApiError:
    text = f"the activity cannot be read: {cause}"
    return unavailable("store_unavailable", text)
