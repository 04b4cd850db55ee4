"""Each secured Kafka with each secured Redis: events in, answers out, a kill, and no password.

`make test` runs cells that have each Kafka and each Redis once; `python -m tests.secured.matrix`
runs all.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from store.log import client as log
from testing.process import Child
from testing.secured.kafka import PASSWORD
from tests import oracle
from tests.exactly_once.conftest import caught_up
from tests.exactly_once.traffic import Traffic
from tests.live.world import is_fresh, live_model, publish
from tests.secured.conftest import Login, Start
from tests.secured.matrix import ALL, cells
from tests.secured.redis_access import WRONG, RedisAccess
from tests.support import eventually

API_KEY = "a-key-of-the-matrix"
READER = "reader"
"""A user whose events come through the API."""
EVENTS = 6
"""More than COLD_START_THRESHOLD: the reader's answers come from ALS."""


@pytest.mark.timeout(480)
@pytest.mark.parametrize(("kafka", "redis_way"), cells(os.environ.get(ALL) == "1"))
def test_no_event_is_lost_and_no_password_is_shown(
    kafka: str,
    redis_way: str,
    login: Login,
    ways_to_redis: dict[str, RedisAccess],
    start: Start,
    tmp_path: Path,
) -> None:
    way = ways_to_redis[redis_way]
    way.admin.flushall()
    settings = login(
        kafka,
        **way.changes,
        api_keys=frozenset({SecretStr(API_KEY)}),
        log_level="debug",
        dedup_window=2000,
    )
    log.ensure_topics(settings)
    publish(settings, seed=3)
    _events_in_and_answers_out(settings, way.admin, start)
    _refusals(settings, way, start)
    shown = start(settings, "core.settings")
    assert shown.wait(60) == 0, shown.describe("failed")
    assert "KAFKA_SASL_PASSWORD" in shown.log.read_text()
    assert_not_shown(tmp_path / "children", PASSWORD, WRONG, API_KEY, way.password)


def _events_in_and_answers_out(settings: Settings, redis: Redis, start: Start) -> None:
    """Events through Kafka and through the API, ingest killed between them, Redis as expected."""
    ingest, live, api = (
        start(settings, *command)
        for command in (("streams", "ingest"), ("streams", "live"), ("api",))
    )
    with Traffic(settings, seed=11):
        eventually(lambda: _applied(redis, settings, ingest) > 300, "ingest applies events", 60)
        ingest.kill()
        ingest = start(settings.model_copy(update={"ingest_group": "another"}), "streams", "ingest")
        before = _applied(redis, settings, ingest)
        eventually(lambda: _applied(redis, settings, ingest) > before + 300, "it goes on", 60)
    with httpx.Client(base_url=address(api), timeout=10) as http:
        token = _post_events(http)
        answer = _recommendations(http, token, api)
    assert answer["interaction_count"] == EVENTS
    assert answer["method_used"] == "als"
    assert len(answer["recommendations"]) == 5
    model = live_model(settings)
    eventually(lambda: is_fresh(redis, settings, model, READER), "the live worker's vector", 60)
    live.check()
    caught_up(redis, settings, ingest)
    checked = oracle.assert_equal(redis, settings)
    assert checked.counted > 600
    assert oracle.dead_letter_differences(settings, checked) == []
    archive = start(settings, "streams", "archive", "--until-idle")
    positions = start(settings, "streams", "inspect", "positions")
    for command in (archive, positions):
        assert command.wait(60) == 0, command.describe("failed")


def _applied(redis: Redis, settings: Settings, ingest: Child) -> int:
    ingest.check()
    return sum(oracle.positions(redis, settings).values())


def address(api: Child) -> str:
    """The address that an API serves."""

    def printed() -> re.Match[str] | None:
        api.check()
        return re.search(r"http://127\.0\.0\.1:\d+", api.log.read_text())

    match = eventually(printed, "the API's address", 60)
    assert match is not None
    return match[0]


def _post_events(http: httpx.Client) -> str:
    """Send the reader's events; answers the token of the last."""
    events = [
        {
            "event_id": f"reader-{number}",
            "user_id": READER,
            "item_id": f"item-{number}",
            "event_type": "like",
            "timestamp": time.time(),
        }
        for number in range(EVENTS)
    ]

    def posted() -> list[str] | None:
        answer = http.post("/api/events", json=events, headers={"X-API-Key": API_KEY})
        accepted = answer.status_code == httpx.codes.ACCEPTED
        return [result["token"] for result in answer.json()["results"]] if accepted else None

    return eventually(posted, "the API accepts events", 60)[-1]


def _recommendations(http: httpx.Client, token: str, api: Child) -> dict[str, object]:
    """The answer that has the event of `token`."""

    def answer() -> dict[str, object] | None:
        api.check()
        path = f"/api/recommendations/{READER}?limit=5&after={token}"
        body = http.get(path).json()
        return None if body["stale"] or body["degraded"] else body

    return eventually(answer, "an answer with the events", 60)


def _refusals(settings: Settings, way: RedisAccess, start: Start) -> None:
    """Processes whose passwords are wrong: their errors must show neither password."""
    wrong: list[Settings] = []
    if settings.kafka_security_protocol.startswith("SASL_"):
        wrong.append(settings.model_copy(update={"kafka_sasl_password": SecretStr(WRONG)}))
    if way.wrong is not None:
        wrong.append(settings.model_copy(update=way.wrong))
    for child in [start(changed, "streams", "ingest") for changed in wrong]:
        assert child.wait(60) == 1, child.describe("goes on")
        assert "error: " in child.log.read_text()


def assert_not_shown(directory: Path, *passwords: str | None) -> None:
    """No output in `directory` has a password, plain or as a URL or JSON writes it."""
    logs = list(directory.glob("*.log"))
    assert logs
    forms: list[Callable[[str], str]] = [
        str,
        lambda text: quote(text, safe=""),
        quote_plus,
        lambda text: text.replace('"', '\\"'),
    ]
    for file in logs:
        output = file.read_text()
        shown = [
            password
            for password in filter(None, passwords)
            if any(form(password) in output for form in forms)
        ]
        assert not shown, f"{file.name} shows {shown}"
