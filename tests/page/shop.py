"""A small marketplace with everything that the page shows: servers, processes, two bundles, a
letter that was refused, and an experiment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from confluent_kafka import Producer
from pydantic import SecretStr
from redis import Redis

from core import settings as configuration
from core.settings import Settings
from demo.stack import Stack
from store.log import client as log
from testing.ports import free_port
from tests import oracle
from tests.support import eventually

WRITER, ADMIN = "a-writers-key", "an-admins-key"
MARKETPLACE = ["--users", "120", "--items", "60", "--events", "4000", "--seed", "7"]
EXPERIMENTS = """
[experiments.earlier_als]
users = [0.0, 1.0]
outcomes = ["like"]

[experiments.earlier_als.variants]
control = {}
from_three = { cold_start_threshold = 3 }
"""
LETTER = b'{"event_id": "letter-1", "user_id": "developer-1", "item_id": "startup-1"}'
"""An event without its type and time, which ingest refuses."""


class Shop:
    """A running marketplace. `users`: the ids of a cold, a warm and a hot user."""

    def __init__(self, stack: Stack, summary: dict[str, Any]) -> None:
        self.stack, self.settings = stack, stack.settings
        self.users: dict[str, str] = {kind: summary[kind] for kind in ("cold", "warm", "hot")}
        self.events: int = summary["events"]
        self.url = f"http://{stack.settings.api_host}:{stack.settings.api_port}"
        self._client = httpx.Client(base_url=self.url, timeout=30.0)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, key: str = WRITER, **query: Any) -> Any:
        """The JSON of a read."""
        answer = self._client.get(path, params=query, headers={"x-api-key": key})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def like(self, user_id: str, item_id: str, recommendation_id: str | None = None) -> None:
        """Send an event, and wait until ingest has applied it."""
        event = {
            "event_id": f"test-{time.time_ns()}",
            "user_id": user_id,
            "item_id": item_id,
            "event_type": "like",
            "timestamp": time.time(),
            "recommendation_id": recommendation_id,
        }
        before = self.count(user_id)
        answer = self._client.post("/api/events", json=event, headers={"x-api-key": WRITER})
        assert answer.status_code == 202, answer.text
        eventually(lambda: self.count(user_id) == before + 1, "the event applied")

    def put_item(self, item_id: str, **entry: Any) -> None:
        """Write an entry of the catalogue, and wait until the API has it."""
        body = {"item_type": "startup", "categories": [], "tags": [], **entry}
        path = f"/api/items/{quote(item_id, safe='')}"
        answer = self._client.put(path, json=body, headers={"x-api-key": WRITER})
        assert answer.status_code == 202, answer.text
        eventually(lambda: self._client.get(path).status_code == 200, "the item in the API")

    def count(self, user_id: str) -> int:
        """The live count of a user's events, as Redis has it."""
        with self.redis() as redis:
            return int(redis.hget(f"user:{user_id}", "events") or 0)  # type: ignore[arg-type]

    @contextmanager
    def another_api(self, **settings: str) -> Iterator[str]:
        """The address of a second API with other settings."""
        port = free_port()
        child = self.stack.start("api", label="another-api", API_PORT=str(port), **settings)
        address = f"http://{self.settings.api_host}:{port}"
        try:
            self.stack.until(lambda: _answers(f"{address}/health/live"), "another API")
            yield address
        finally:
            child.stop()
            self.stack.children.remove(child)

    def redis(self) -> Redis:
        """A client of the marketplace's Redis."""
        return Redis.from_url(self.settings.redis_url.get_secret_value())


@contextmanager
def running(folder: Path) -> Iterator[Shop]:
    """Start a marketplace in `folder`, with one bundle that was trained from its events."""
    experiments = folder / "experiments.toml"
    experiments.write_text(EXPERIMENTS, "utf-8")
    configured = configuration.defaults().model_copy(
        update={
            "api_keys": frozenset({SecretStr(WRITER)}),
            "api_admin_keys": frozenset({SecretStr(ADMIN)}),
            "api_port": 0,  # any free one
            "api_redis_timeout_s": 5.0,  # a busy machine must not make an answer degraded
            "enable_two_tower": False,
            "tune_seconds": 0.0,
            "experiments_path": experiments,
        }
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        Stack(folder / "stack", configured) as stack,
    ):
        patch.delenv("KAFKA_HOME", raising=False)  # Tansu starts in a second
        stack.start_servers()
        yield from _filled(stack)


def _filled(stack: Stack) -> Iterator[Shop]:
    def run(name: str, *arguments: str) -> None:
        stack.run(name, *arguments, label="-".join(arguments[:1]), show=lambda _line: None)

    run("streams", "topics")
    stack.start("streams", "ingest", label="ingest", METRICS_PORT=str(stack.metrics_port))
    summary = stack.directory / "summary.json"
    run("streams", "simulate", *MARKETPLACE, "--summary", str(summary))
    _refuse(stack.settings)
    shop = Shop(stack, json.loads(summary.read_text("utf-8")))
    stack.start("api", label="api")  # it starts while the first bundle is trained
    run("streams", "archive", "--until-idle")
    with shop.redis() as redis:
        stack.until(
            lambda: sum(oracle.positions(redis, stack.settings).values()) > shop.events,
            "every event applied, and the letter refused",
        )
    run("training", "retrain")
    stack.start("training", "worker", label="worker")
    try:
        stack.until(lambda: _answers(f"{shop.url}/health/ready"), "the API ready")
        shop.like("guest", "startup-9")  # so the item has an event in the last hour
        yield shop
    finally:
        shop.close()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def _refuse(settings: Settings) -> None:
    """Send the letter, which ingest puts among the dead letters."""
    producer = Producer(log.client_config(settings))
    producer.produce(settings.interactions_topic, LETTER, key="developer-1")
    producer.flush()
