"""Reading your own write: `GET ...?after=<token>` answers once that write is in the answer, or says
that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from core.settings import Settings
from core.types import Recommendations
from store.log.topics.ids import TopicIds
from store.state import keys
from testing.redis import RedisServer
from tests.api.world import (
    FOR_DEVELOPER,
    Client,
    checked,
    event,
    publish,
    remember,
    serving,
    shown,
    until_missing,
)
from tests.conftest import Spawn
from tests.engines.world import ITEMS
from tests.support import eventually

READS = (
    f"{FOR_DEVELOPER}/warm",
    "/api/recommendations/warm",
    "/api/explain/warm/coin",
    "/api/users/warm",
)


@pytest.fixture
def waiting(settings: Settings, redis: Redis) -> Iterator[Client]:
    """An API that waits for at most a second, without a broker: the test moves the positions."""
    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    with serving(settings, api_after_s=1.0) as client:
        yield client


def set_position(redis: Redis, topic: str, position: int, partition: int = 0) -> None:
    redis.hset(keys.ONLY.position(topic, partition), "position", position)


@pytest.mark.parametrize("path", READS)
def test_a_read_waits_until_the_position_has_passed_the_event(
    waiting: Client, redis: Redis, settings: Settings, path: str
) -> None:
    topic = settings.interactions_topic
    set_position(redis, topic, 8)
    assert waiting.get(f"{path}?after={topic}:0:7").json()["stale"] is False
    assert waiting.get(f"{path}?after={topic}:0:8").json()["stale"] is True, (
        "offset 8 is the next one to be applied"
    )
    assert waiting.get(f"{path}?after={topic}:1:0").json()["stale"] is True, (
        "another partition's position says nothing"
    )
    assert waiting.get(path).json()["stale"] is False


def test_an_event_applied_while_the_read_waits_is_in_the_answer(
    settings: Settings, redis: Redis
) -> None:
    publish(settings)
    remember(redis, "warm", "pay", events=7)
    topic = settings.interactions_topic
    with serving(settings, api_after_s=30.0) as client, ThreadPoolExecutor(8) as pool:
        answers = [
            pool.submit(client.get, f"{FOR_DEVELOPER}/warm?limit=50&after={topic}:0:{offset}")
            for offset in (3, 4, 5, 5, 5)
        ]
        eventually(
            lambda: redis.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0) > 3,
            "the reads check the position",
        )
        assert not any(answer.done() for answer in answers)
        remember(redis, "warm", "coin")
        set_position(redis, topic, 6)
        for answer in answers:
            response = answer.result(20)
            assert "coin" not in shown(response), "the user has seen it now"
            assert response.json()["stale"] is False


def test_a_position_of_a_deleted_topic_of_the_same_name_is_ignored(
    waiting: Client, redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic was deleted and created again; the old topic had the offset of the token, too."""
    topics = (settings.interactions_topic, settings.items_topic)
    monkeypatch.setattr(TopicIds, "latest", lambda _ids, _topic: "new")
    for topic in topics:
        set_position(redis, topic, 8)
        redis.hset(keys.ONLY.position(topic, 0), "topic_id", "old")
        assert waiting.get(f"/api/users/warm?after={topic}:0:7").json()["stale"] is True
        redis.hset(keys.ONLY.position(topic, 0), "topic_id", "new")
        eventually(
            lambda topic=topic: (
                waiting.get(f"/api/users/warm?after={topic}:0:7").json()["stale"] is False
            ),
            "the position is of the new topic",
        )


def test_positions_are_read_only_while_a_read_waits(waiting: Client, settings: Settings) -> None:
    assert (
        waiting.get(f"{FOR_DEVELOPER}/warm?after={settings.interactions_topic}:0:5").json()["stale"]
        is True
    )
    eventually(lambda: "arrivals" not in waiting.tasks(), "the last check is over")
    assert waiting.get(f"{FOR_DEVELOPER}/warm").status_code == 200
    assert "arrivals" not in waiting.tasks()
    assert 'eddyline_api_after_seconds_count{outcome="stale"} 1.0' in waiting.get("/metrics").text


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "{topic}",
        "{topic}:0",
        "{topic}:0:",
        "{topic}:0:-1",
        "{topic}:0:1:2",
        "{topic}:0:1e3",
        "{topic}:0:٣",
        "other:0:1",
        "%FF:0:1",
        "{topic}:0:" + "9" * 40,
    ],
)
def test_an_invalid_token_is_a_422(waiting: Client, settings: Settings, token: str) -> None:
    for path in READS:
        answer = waiting.get(f"{path}?after={token.format(topic=settings.interactions_topic)}")
        assert (answer.status_code, answer.json()["error"]) == (422, "bad_token"), path


def test_after_may_occur_once(waiting: Client, settings: Settings) -> None:
    token = f"{settings.interactions_topic}:0:1"
    assert (
        waiting.get(f"{FOR_DEVELOPER}/warm?after={token}&after={token}").json()["error"]
        == "invalid_parameter"
    )
    assert (
        waiting.get(f"{FOR_DEVELOPER}/warm?%61fter={token.replace(':', '%3A')}").json()["stale"]
        is True
    )
    assert waiting.get(f"/api/popular?after={token}").json()["error"] == "unknown_parameter"
    assert waiting.get("/api/users/warm?befor=1").json()["error"] == "unknown_parameter"


def test_while_redis_is_away_reads_do_not_wait(
    settings: Settings, own_redis_server: RedisServer
) -> None:
    publish(settings)
    with serving(settings, api_after_s=50.0) as client:
        own_redis_server.kill()
        until_missing(client, "redis", "kafka")
        for path in READS:
            body = client.get(f"{path}?after={settings.interactions_topic}:0:5").json()
            assert (body["stale"], body["degraded"]) == (True, True)


def test_a_redis_that_dies_ends_the_wait(settings: Settings, own_redis_server: RedisServer) -> None:
    publish(settings)
    with serving(settings, api_after_s=50.0) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            client.get, f"{FOR_DEVELOPER}/warm?after={settings.interactions_topic}:0:5"
        )
        with Redis.from_url(own_redis_server.url) as redis:
            eventually(
                lambda: redis.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0) > 3,
                "it looks at the position",
            )
        own_redis_server.kill()
        body = waiting.result(20).json()
        assert (body["stale"], body["degraded"]) == (True, True)


def test_a_read_with_the_token_of_an_item_waits_for_the_live_view(
    settings: Settings, redis: Redis
) -> None:
    from tests.api.world import store_items

    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    store_items(redis, *ITEMS)
    with serving(settings, api_after_s=20.0) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            client.get, f"{FOR_DEVELOPER}/warm?limit=50&after={settings.items_topic}:2:9"
        )
        store_items(
            redis, ITEMS[0].__class__(item_id="fresh", item_type="startup", categories=["fintech"])
        )
        set_position(redis, settings.items_topic, 10, 2)
        response = answer.result(20)
        assert "fresh" in shown(response)
        assert response.json()["stale"] is False


@pytest.mark.process
def test_a_read_after_a_write_through_kafka_and_ingest_contains_it(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    publish(settings)
    spawn("streams", "ingest")
    with serving(settings, api_after_s=30.0, api_timeout_s=40.0) as client:
        until_missing(client)
        for number, item_id in enumerate(("pay", "coin", "bank"), 1):
            written = client.write("POST", "/api/events", event(f"e{number}", item_id=item_id))
            token = written.json()["results"][0]["token"]
            answer = client.get(f"{FOR_DEVELOPER}/42?limit=50&after={token}")
            checked(answer.json(), Recommendations)
            assert (answer.json()["interaction_count"], answer.json()["stale"]) == (number, False)
            assert item_id not in shown(answer)
        token = client.write(
            "PUT", "/api/items/fresh", {"item_type": "startup", "categories": ["fintech"]}
        ).json()["token"]
        assert "fresh" in shown(client.get(f"{FOR_DEVELOPER}/42?limit=50&after={token}"))
        token = client.write("PUT", "/api/users/7", {"interests": ["health"]}).json()["token"]
        assert client.get(f"/api/users/7?after={token}").json()["profile"]["interests"] == [
            "health"
        ]
        token = client.write("DELETE", "/api/users/42").json()["token"]
        assert client.get(f"/api/users/42?after={token}").json()["known"] is False


def test_a_wait_ends_before_the_request_times_out(settings: Settings, redis: Redis) -> None:
    publish(settings)
    with serving(settings, api_after_s=60.0, api_timeout_s=5.0) as client:
        answer = client.get(f"{FOR_DEVELOPER}/warm?after={settings.interactions_topic}:0:5")
        assert (answer.status_code, answer.json()["stale"]) == (200, True)


def test_the_number_of_waiting_reads_is_limited(
    waiting: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.after.MOST_WAITING", 0)
    assert (
        waiting.get(f"{FOR_DEVELOPER}/warm?after={settings.interactions_topic}:0:5").json()["stale"]
        is True
    )
    assert "arrivals" not in waiting.tasks()
