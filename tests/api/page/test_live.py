"""What the page shows of now: `GET /api/live`, one sample a second for all pages together."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api.page.live import Live
from api.page.traffic import Traffic
from api.schemas.live import LiveNumbers
from core.settings import Settings
from core.types import Interaction
from store.log.producer import Producer
from tests.api import world
from tests.conftest import Spawn
from tests.support import eventually

LISTENERS = 10
EVENTS, READS = 40, 30


@contextmanager
def listening(base: str, **query: str) -> Iterator[Iterator[dict[str, Any]]]:
    with httpx.stream("GET", f"{base}/api/live", params=query, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        yield (json.loads(line.removeprefix("data: ")) for line in lines)


def until(
    samples: Iterator[dict[str, Any]], condition: Callable[[dict[str, Any]], bool], what: str
) -> dict[str, Any]:
    latest: dict[str, Any] = {}
    for latest in itertools.islice(samples, 45):
        if condition(latest):
            return latest
    raise AssertionError(f"{what}: {json.dumps(latest)[:3000]}")


@pytest.mark.usefixtures("broker")
def test_the_numbers_of_now_are_those_of_real_events_and_reads(
    settings: Settings, spawn: Spawn
) -> None:
    settings = settings.model_copy(update={"api_keys": frozenset({SecretStr(world.KEY)})})
    world.publish(settings)
    keyed = {"API_KEYS": world.KEY, "API_LIVE_LISTENERS": str(LISTENERS)}
    spawn("streams", "ingest")
    api = spawn("api", **keyed)
    port = eventually(lambda: world.port_of(api.log.read_text()), "the API serves")
    base = f"http://127.0.0.1:{port}"
    with listening(base) as samples:
        world.checked(next(samples), LiveNumbers)
        before = time.time()
        with Producer(settings) as producer:
            for number in range(EVENTS):
                producer.interaction(
                    Interaction(
                        event_id=str(uuid.uuid4()),
                        user_id=str(number % 5),
                        item_id="pay",
                        event_type="like",
                        timestamp=time.time(),
                    )
                )
            producer.raw(settings.interactions_topic, b"1", b"not json")
        for _ in range(READS):
            assert httpx.get(f"{base}/api/recommendations/1").status_code == 200
        seen = until(
            samples,
            lambda now: (
                (now["events"] or {}).get("lag") == 0
                and sum(row["position"] for row in interactions(now, settings)) == EVENTS + 1
                and sum(now["answers"]["by_engine"].values()) == READS
                and (now["dead_letters"] or {}).get("total") == 1
                and now["probe"]["count"] >= 2
            ),
            "events, reads, dead letters and probes are shown",
        )
        assert seen["dead_letters"]["by_code"] == {"not_json": 1}
        assert 0 <= seen["events"]["latest_age_s"] <= time.time() - before
        assert 0 < seen["answers"]["p50_ms"] <= seen["answers"]["p99_ms"]
        assert seen["answers"]["degraded_share"] == 0
        assert 0 < seen["probe"]["p50_ms"] <= seen["probe"]["p99_ms"] < 5000
        assert seen["redis"]["used_bytes"] > 0
        assert seen["redis"]["users"] is not None
        assert seen["processes"][0]["kind"] == "ingest"
        assert seen["missing"] == []
    popular = httpx.get(f"{base}/api/popular").json()
    assert "probe" not in json.dumps(popular)
    assert httpx.get(f"{base}/api/users/eddyline-probe").json()["interaction_count"] == 0
    ten_pages_share_one_sampler(base)
    api.stop()
    assert api.exit_code == 0


def interactions(now: dict[str, Any], settings: Settings) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = now["events"]["partitions"]
    return [row for row in rows if row["topic"] == settings.interactions_topic]


def ten_pages_share_one_sampler(base: str) -> None:
    """Every listener gets the same samples, and one more than the limit is refused."""

    async def listen(client: httpx.AsyncClient, times: list[float], go: asyncio.Event) -> None:
        async with client.stream("GET", f"{base}/api/live") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    now = json.loads(line.removeprefix("data: "))
                    if now["listeners"] == LISTENERS:
                        times.append(now["at"])
                        if len(times) == 1:
                            go.set()
                    if len(times) == 4:
                        return

    async def run() -> list[list[float]]:
        received: list[list[float]] = [[] for _ in range(LISTENERS)]
        go = asyncio.Event()
        async with httpx.AsyncClient(timeout=30) as client:
            pages = asyncio.gather(*(listen(client, times, go) for times in received))
            await asyncio.wait_for(go.wait(), 30)
            refused = await client.get(f"{base}/api/live")
            assert refused.status_code == 429
            assert refused.json()["error"] == "too_many_listeners"
            await pages
        return received

    received = asyncio.run(run())
    assert all(times == received[0] for times in received)
    for earlier, later in itertools.pairwise(received[0]):
        assert later - earlier > 0.5, "one sample a second, whatever the number of pages"


def test_a_page_that_does_not_read_delays_no_other_and_is_sent_the_latest(
    api: world.Client,
) -> None:
    live = next(
        route.endpoint.__self__
        for route in api.app.routes
        if getattr(route, "path", "") == "/api/live"
    )
    assert isinstance(live, Live)
    stuck: list[bytes] = []
    received: list[bytes] = []

    async def listen() -> None:
        never = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await never.wait()
            return {}

        async def send_to(messages: list[bytes], blocked: bool, message: Any) -> None:
            messages.append(message["body"])
            if blocked:
                await never.wait()

        slow = asyncio.create_task(live.send(receive, partial(send_to, stuck, True), 0))
        await live.send(receive, partial(send_to, received, False), 3)
        slow.cancel()

    api.start(listen).result(30)
    assert len(stuck) == 1, "nothing is collected for it"
    assert len([sample for sample in received if sample]) == 3
    assert len(set(received)) == len(received)


def test_a_stream_ends_with_its_number_of_samples_and_needs_the_rights_of_a_read(
    settings: Settings, redis: object
) -> None:
    with world.serving(settings, api_read_keys="readers-key") as client:
        assert client.get("/api/live?samples=1").status_code == 401
        with_key = {"x-api-key": "readers-key"}
        answer = client.get("/api/live?samples=2", headers=with_key)
        assert answer.text.count("data: ") == 2
        assert answer.headers["cache-control"] == "no-store"
        assert json.loads(answer.text.split("data: ")[1])["probe"]["off"] is None
        assert client.request("HEAD", "/api/live", headers=with_key).status_code == 200
        assert client.get("/api/live?samples=x", headers=with_key).status_code == 422
    with world.serving(settings, api_keys="") as client:
        answer = client.get("/api/live?samples=1")
        assert "API_KEYS" in json.loads(answer.text.removeprefix("data: "))["probe"]["off"]


def test_traffic_of_the_last_minute_is_counted_from_the_metrics(api: world.Client) -> None:
    metrics = api.app.state.service.metrics
    traffic = Traffic()
    traffic.add(metrics.registry.collect())
    for _ in range(99):
        metrics.count_request("GET", "/api/recommendations/{user_id}", 200, 0.0015)
        metrics.count_answer("als", False)
    metrics.count_request("GET", "/api/recommendations/{user_id}", 200, 0.3)
    metrics.count_answer("popular", True)
    metrics.count_request("GET", "/api/models", 200, 4.0)
    metrics.observe_wait(True, 0.1)
    metrics.observe_wait(False, 1.0)
    now = traffic.add(metrics.registry.collect())
    assert now.by_engine == {"als": 99, "popular": 1}
    assert now.degraded_share == 0.01
    assert now.stale_share == 0.5
    assert 1 <= (now.p50_ms or 0) <= 2
    assert (now.p99_ms or 0) <= 2, "the slow one is the hundredth"
    assert now.per_second is not None
    assert now.per_second > 0
