"""Budgets of expensive routes and rates of callers: ordinary reads go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from redis import Redis

from core.settings import Settings
from tests.api.trained_users import PEOPLE, publish_users
from tests.api.world import KEY, Client, event, remember, serving
from tests.support import eventually

EXPENSIVE = ["/api/users/me/similar", "/api/explain/me/bank", "/metrics"]


@pytest.fixture
def api(settings: Settings, redis: Redis) -> Iterator[Client]:
    publish_users(settings, PEOPLE)
    remember(redis, "me", "coin", "pay")
    with serving(settings, api_expensive_waiting=2) as client:
        yield client


@contextmanager
def worker_at_work(client: Client) -> Iterator[None]:
    """The thread for expensive answers is busy during the block."""
    busy, done = threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        done.wait(60)

    worker = client.app.state.service.worker
    running = client.start(lambda: worker.run(work))
    assert busy.wait(60)
    try:
        yield
    finally:
        done.set()
        running.result(60)


@pytest.mark.parametrize("path", EXPENSIVE)
def test_an_expensive_route_at_its_budget_answers_429_and_ordinary_reads_go_on(
    api: Client, path: str
) -> None:
    with ThreadPoolExecutor(3) as callers:
        with worker_at_work(api):
            waiting = [callers.submit(api.get, path) for _ in range(3)]
            refused = eventually(
                lambda: (answer := api.get(path, timeout=5)).status_code == 429 and answer,
                "the budget is used up",
            )
            assert (refused.json()["error"], refused.headers["retry-after"]) == ("too_busy", "1")
            assert api.get("/api/recommendations/me").status_code == 200
            assert api.get("/health/live").status_code == 200
        assert [call.result().status_code for call in waiting] == [200, 200, 200]
    assert api.get(path).status_code == 200


def test_a_cancelled_request_frees_its_place(settings: Settings, redis: Redis) -> None:
    publish_users(settings, PEOPLE)
    remember(redis, "me", "coin", "pay")
    with serving(settings, api_expensive_waiting=0, api_timeout_s=0.3) as client:
        with worker_at_work(client):
            assert client.get("/api/explain/me/bank").status_code == 503
            assert client.get("/api/explain/me/bank").status_code == 503, (
                "and not 429: the first request no longer waits"
            )
        assert client.get("/api/explain/me/bank").status_code == 200


def test_other_requests_run_between_the_events_of_one_request(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(settings) as client:
        turns = 0
        turns_at_events = []

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def publish_at_once(*_: object) -> str:
            turns_at_events.append(turns)
            return "interactions:0:0"

        monkeypatch.setattr(client.app.state.service, "publish", publish_at_once)
        task = client.start(count_turns)
        try:
            assert (
                client.write(
                    "POST", "/api/events", [event(str(number)) for number in range(1000)]
                ).status_code
                == 202
            )
        finally:
            task.cancel()
    assert len(set(turns_at_events)) >= 20, "1,000 events in one turn of the event loop"


def test_a_key_over_its_rate_gets_429_and_other_keys_do_not(
    settings: Settings, redis: Redis
) -> None:
    with serving(
        settings, api_rate_per_s=0.01, api_rate_burst=3, api_read_keys="reader-1,reader-2"
    ) as client:

        def read(**headers: str) -> int:
            return client.get(
                "/api/popular",
                headers={name.replace("_", "-"): value for name, value in headers.items()},
            ).status_code

        assert [read(x_api_key="reader-1") for _ in range(4)] == [200, 200, 200, 429]
        assert read(authorization="Bearer reader-1") == 429, "the same key sent in the other way"
        assert [read(x_api_key="reader-2") for _ in range(3)] == [200, 200, 200]
        refused = client.get("/api/popular", headers={"x-api-key": "reader-1"})
        assert refused.json()["error"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 100
        assert client.get("/health/live").status_code == client.get("/metrics").status_code == 200


def test_without_a_key_of_the_server_the_rate_is_by_address(
    settings: Settings, redis: Redis
) -> None:
    with serving(settings, api_rate_per_s=0.01, api_rate_burst=2) as client:
        answers = [
            client.get("/api/popular", headers={"x-api-key": f"made-up-{number}"}).status_code
            for number in range(3)
        ]
        assert answers == [200, 200, 429]
        assert client.get("/api/popular", headers={"x-api-key": KEY}).status_code == 200


def test_a_rate_recovers_with_time(settings: Settings, redis: Redis) -> None:
    with serving(settings, api_rate_per_s=5, api_rate_burst=1) as client:
        assert client.get("/api/popular").status_code == 200
        eventually(
            lambda: client.get("/api/popular").status_code == 200,
            "one more request after a fifth of a second",
            every=0.05,
        )
