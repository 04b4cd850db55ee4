"""A small world for tests of the API: a bundle of eight startups, users in a real Redis, a running
app.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio.from_thread
import httpx
import jsonschema
import msgspec
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from pydantic import SecretStr
from redis import Redis

from api.app import create_app
from api.health import Health
from api.live_view.view import LiveView
from api.metrics import Metrics
from api.schemas.document import REFERENCE, schemas
from core.codec import encode_json
from core.settings import Settings
from core.types import Item, User
from models import bundle, files
from models.content import ContentModel
from models.popular import PopularModel
from models.registry import Registry
from models.router.served import FIELD, Served
from models.router.thresholds import PreferredThresholds
from store.log.topics.ids import TopicIds
from store.log.topics.partitions import Partitions
from store.state import keys
from store.state.entities.users import history_line
from tests.engines.world import ITEMS, POPULAR, als
from tests.models.world import WARM
from tests.support import eventually

_Answer = TypeVar("_Answer", bound=msgspec.Struct)
KEY = "a-writers-key"
FOR_DEVELOPER = "/api/recommendations/startups/for-developer"


def publish(
    settings: Settings,
    *,
    without: str = "",
    items: list[Item] | None = None,
    thresholds: PreferredThresholds | None = None,
) -> str:
    """Publish a bundle of the world, live at once; `without` leaves one part out.

    `thresholds`: those that its warm users prefer to ALS from 5 events on.
    """

    def write(folder: Path) -> None:
        catalogue = ITEMS if items is None else items
        files.write_json(folder / bundle.CATALOGUE, catalogue)
        for part, model in {
            "als": als(),
            "content": ContentModel.fit(catalogue),
            "popular": PopularModel(POPULAR),
        }.items():
            if part != without:
                (folder / part).mkdir()
                model.save(folder / part)
        if thresholds is not None:
            thresholds.save(folder / "router")

    return Registry(settings.models_path).publish(write, _metrics(thresholds))


def _metrics(thresholds: PreferredThresholds | None) -> dict[str, Any]:
    """The metrics of a manifest; none without `thresholds`."""
    if thresholds is None:
        return {}
    served = Served(router="fixed", segments=[WARM], thresholds=thresholds)
    return {"metrics": {FIELD: msgspec.to_builtins(served)}}


def live_view(settings: Settings, metrics: Metrics) -> LiveView:
    """A live view without an app."""
    topics = [settings.interactions_topic, settings.items_topic, settings.users_topic]
    health = Health(metrics, ("redis", "model"))
    return LiveView(
        settings, health, metrics, Partitions(settings, topics), TopicIds(settings, topics)
    )


def remember(
    redis: Redis,
    user_id: str,
    *items: str,
    events: int | None = None,
    interests: list[str] | None = None,
) -> None:
    """Write the state of a user who liked `items`, as ingest writes it.

    `events`: the live count, where it is larger.
    """
    count = len(items) if events is None else events
    if count:
        redis.hset(
            keys.of(redis).user(user_id),
            mapping={"events": count, "ev:like": count, "first_seen": 1_700_000_000},
        )
    if items:
        redis.rpush(
            keys.of(redis).history(user_id),
            *(history_line(1.7e9 + at, "like", None, item) for at, item in enumerate(items)),
        )
    if interests:
        redis.set(
            keys.of(redis).profile(user_id), encode_json(User(user_id=user_id, interests=interests))
        )


def store_items(redis: Redis, *items: Item) -> None:
    """Write the catalogue as ingest writes it."""
    for item in items:
        redis.hset(keys.of(redis).items, item.item_id, encode_json(item))
        redis.xadd(keys.of(redis).items_changes, {"item": item.item_id})


class Client:
    """A blocking client of the app in this process, whose event loop runs in another thread."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self.app, self._portal = app, portal
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://api",
            timeout=60,
        )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._portal.call(partial(self._client.request, method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def start(self, run: Callable[[], Awaitable[Any]]) -> Future[Any]:
        """Run `run` in the app's event loop, beside its requests, until the future is cancelled."""
        return self._portal.start_task_soon(run)

    def tasks(self) -> set[str]:
        """The names of the tasks in the app's event loop."""
        return self._portal.call(lambda: {task.get_name() for task in asyncio.all_tasks()})

    def write(self, method: str, path: str, body: object = None, **options: Any) -> httpx.Response:
        """A request with the writer's key; `body` as JSON."""
        content = (
            {} if body is None else {"content": body} if isinstance(body, bytes) else {"json": body}
        )
        return self.request(method, path, headers={"x-api-key": KEY}, **content, **options)


@contextmanager
def serving(settings: Settings, **changed: Any) -> Iterator[Client]:
    """A client of a started app. `changed`: settings; keys as text."""
    for name, value in changed.items():
        if name.endswith("keys"):
            changed[name] = frozenset(SecretStr(key) for key in value.split(",") if key)
    of_tests = {
        "api_keys": frozenset({SecretStr(KEY)}),
        "refresh_s": 0.05,
        # a busy machine must not make an answer degraded, nor refuse a write
        "api_redis_timeout_s": 2.0,
        "api_timeout_s": 20.0,
    }
    app = create_app(settings.model_copy(update={**of_tests, **changed}))
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        yield Client(app, portal)


def event(event_id: str = "e1", **fields: object) -> dict[str, object]:
    """A valid event as a backend posts it."""
    return {
        "event_id": event_id,
        "user_id": "42",
        "item_id": "pay",
        "event_type": "like",
        "timestamp": time.time(),
        **fields,
    }


def checked(body: object, kind: type[_Answer]) -> _Answer:
    """The JSON `body` of an answer as `kind`. Raises ValidationError unless it is exactly what the
    OpenAPI document says.
    """
    document = {"components": {"schemas": schemas([kind])}, "$ref": REFERENCE + kind.__name__}
    jsonschema.validate(body, document)
    return msgspec.convert(body, kind)


def shown(answer: httpx.Response) -> list[str]:
    """Ids of the recommended items, in order. Raises AssertionError unless the answer is a 200."""
    assert answer.status_code == 200, answer.text
    return [line["item_id"] for line in answer.json()["recommendations"]]


def until_missing(client: Client, *parts: str) -> None:
    """Wait until exactly `parts` are reported as missing."""
    eventually(
        lambda: (
            {gap["part"] for gap in client.get("/health/ready").json()["missing"]} == set(parts)
        ),
        f"missing: {parts}",
    )


def port_of(log: str) -> int | None:
    """The port in the log line `serving` of an API; None before it serves."""
    match = re.search(r"http://127\.0\.0\.1:(\d+)", log)
    return int(match[1]) if match else None
