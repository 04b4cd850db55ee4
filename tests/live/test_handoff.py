"""Retrain, promote and roll back ten times while events and reads flow: no read fails, no answer
mixes two bundles, no update is lost.
"""

from __future__ import annotations

import io
import logging
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import structlog
from redis import Redis
from rich.console import Console

from core.settings import Settings
from core.types import Filters, HistoryEvent, Interaction, Request, UserState
from engines.builder import build
from engines.recommender import Recommender
from models.registry import Registry
from store.log import client as log
from store.log.producer import Producer
from store.state import keys
from store.state.apply import deletions
from tests import oracle
from tests.api.world import port_of
from tests.conftest import Spawn
from tests.exactly_once.conftest import ends
from tests.live.world import is_fresh, live_model
from tests.support import Background, eventually
from tests.training import world
from training.job.retrain import Options, retrain

ROUNDS = 10
USERS = [f"live-{number}" for number in range(20)]
ADMIN = {"x-api-key": "an-admins-key"}
READERS = 3
TOLERANCE = 2e-3
"""Of a score: the compiled solver's and the reader's fold-in differ in rounding, by up to 1e-4 of a
vector.
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Log lines from `warning` up, as a failed test shows them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


class Events(Background):
    """Events of USERS until the block is left; `of[user]` are that user's, in order, noted before
    they are sent.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._random, self._number = random.Random(3), 0
        self.of: dict[str, list[HistoryEvent]] = defaultdict(list)

    def send(self, users: list[str]) -> None:
        """One event of each."""
        with Producer(self._settings) as producer:
            for user in users:
                self._send(producer, user)

    def _send(self, producer: Producer, user: str) -> None:
        self._number += 1
        kind, item, now = (
            self._random.choice(["view", "like"]),
            f"i{self._random.randrange(world.ITEMS)}",
            time.time(),
        )
        self.of[user].append(HistoryEvent(int(now), kind, item))
        producer.interaction(Interaction(f"e{self._number}", user, item, kind, now))

    def run(self, _thread: int) -> None:
        """Four events at a time."""
        with Producer(self._settings) as producer:
            while not self.ended.wait(0.02):
                for _ in range(4):
                    self._send(producer, self._random.choice(USERS))


class Reads(Background):
    """Reads for USERS until the block is left; `answers` are the different ones, `failed` what was
    no whole answer.
    """

    def __init__(self, port: int) -> None:
        super().__init__(READERS)
        self._url = f"http://127.0.0.1:{port}"
        self.answers: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.failed: list[str] = []
        self.count = 0

    def run(self, number: int) -> None:
        """One read after the other."""
        rng = random.Random(number)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self.ended.is_set():
                answer = client.get(
                    f"/api/recommendations/{rng.choice(USERS)}?limit=10&include_seen=true"
                )
                self.count += 1
                body = answer.json()
                if (
                    answer.status_code != 200
                    or body["degraded"]
                    or len(body["recommendations"]) != 10
                ):
                    self.failed.append(answer.text)
                else:
                    self.answers[body["user_id"], body["model_version"], body["as_of"]] = body


def mixed(
    answer: dict[str, Any], recommender: Recommender, history: list[HistoryEvent], cap: int
) -> str | None:
    """What is wrong with an answer that ALS gave, or None: it must be what its bundle makes of the
    user's first `as_of` events.
    """
    if {line["method"] for line in answer["recommendations"]} != {"als"}:
        return None
    events = answer["as_of"]
    state = UserState(user_id=answer["user_id"], events=events, history=history[:events][-cap:])
    request = Request(
        limit=world.ITEMS, engine="als", reasons=False, filters=Filters(exclude_seen=False)
    )
    expected = {
        line.item_id: line.score
        for line in recommender.recommend(state, request).recommendations
        if line.method == "als"
    }
    told = {line["item_id"]: line["score"] for line in answer["recommendations"]}
    allowed = TOLERANCE * max(1.0, *map(abs, expected.values()))
    off = {
        item: (score, expected.get(item))
        for item, score in told.items()
        if abs(score - expected.get(item, np.inf)) > allowed
    }
    tenth = sorted(expected.values())[-10]
    if off or min(told.values()) < tenth - allowed:
        return (
            f"{answer['model_version']} with {events} events of {answer['user_id']}: {off or told}"
        )
    return None


@pytest.mark.process
@pytest.mark.timeout(400)
def test_ten_hand_offs_under_load(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object, tmp_path: Path
) -> None:
    small = settings.model_copy(
        update={
            "als_factors": 8,
            "als_regularization": 5.0,
            "holdout_fraction": 0.25,
            "keep_bundles": 20,
        }
    )
    log.ensure_topics(small)
    world.archived(small, world.parity())
    entries = world.write_items(tmp_path / "items.jsonl")
    registry = Registry(small.models_path)

    def retrained(number: int) -> str:
        """Another alpha for each, so that every bundle scores unlike the others; some are worse, so
        the gate is overruled.
        """
        chosen = small.model_copy(update={"als_alpha": 1.0 + number, "training_seed": number})
        return retrain(
            chosen, Options(items=entries, threads=1, force=True), Console(file=io.StringIO())
        )

    deletions.mark_ready(redis)  # the first bundle is fitted before ingest has read the log
    versions = [retrained(0)]
    api = spawn("api", API_ADMIN_KEYS=ADMIN["x-api-key"], REFRESH_S="0.05")
    children = [api, spawn("streams", "ingest"), spawn("streams", "live", REFRESH_S="0.05")]
    port = eventually(lambda: api.alive and port_of(api.log.read_text()), "the API serves", 60.0)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=ADMIN)

    def served(version: str) -> None:
        """Wait until readers are answered by `version`."""
        before = reads.count

        def there() -> bool:
            for child in children:
                child.check()
            return (
                reads.count > before + READERS
                and client.get("/api/models").json()["serving"] == version
            )

        eventually(there, f"{version} answers", 60.0)

    def hand_off(path: str, version: str) -> None:
        answer = client.post(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["live"] == version
        served(version)

    eventually(
        lambda: not client.get("/health/ready").json()["degraded"], "all of it is there", 60.0
    )
    with Events(small) as events:
        eventually(
            lambda: all(int(redis.hget(keys.user(user), "events") or 0) >= 5 for user in USERS),
            "users whom ALS answers",
            60.0,
        )
        with Reads(port) as reads:
            for number in range(1, ROUNDS + 1):
                before = versions[-1]
                versions.append(retrained(number))
                served(versions[-1])
                hand_off("/api/models/rollback", before)
                hand_off(f"/api/models/{versions[-1]}/promote", versions[-1])
    client.close()
    # 1. no failed read
    assert reads.failed == []
    assert reads.count > ROUNDS * 3 * READERS
    # 2. no answer that mixes two bundles
    by_als = [answer for answer in reads.answers.values() if answer["method_used"] == "als"]
    assert {answer["model_version"] for answer in by_als} == set(versions), (
        "every bundle was met by readers"
    )
    recommenders = {
        version: build(registry.load(version, strict=True), settings=small) for version in versions
    }

    def found_mixed(serving: dict[str, Recommender]) -> list[str]:
        looked = (
            mixed(
                answer,
                serving[answer["model_version"]],
                events.of[answer["user_id"]],
                small.history_cap,
            )
            for answer in by_als
        )
        return [problem for problem in looked if problem is not None]

    assert found_mixed(recommenders) == []
    shifted = dict(zip(versions, [*versions[1:], versions[0]], strict=True))
    assert (
        len(found_mixed({version: recommenders[other] for version, other in shifted.items()}))
        > len(by_als) / 2
    ), "else it shows nothing"
    # 3. no update lost, and who is touched again has a vector in the last bundle's space
    model = live_model(small)

    def all_fresh() -> bool:
        stale = [user for user in USERS if not is_fresh(redis, small, model, user)]
        events.send(stale)
        return not stale

    eventually(all_fresh, "fresh vectors", 120.0, every=2.0)
    end = ends(small)
    eventually(
        lambda: oracle.positions(redis, small) == end == oracle.popularity_positions(redis, small),
        "ingest at the log's end",
        60.0,
    )
    counted = oracle.assert_equal(redis, small)
    assert counted.counted == sum(map(len, events.of.values()))
    assert registry.current() == versions[-1]
