"""Retrains, promotes and rolls back ten times under load of events and reads.

No read fails, no answer mixes two bundles, no update is lost.
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
    """Log only from `warning` up, so that the output of a failed test is short."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


class Events(Background):
    """Sends events of USERS until the block is left.

    `of[user_id]` are the user's events in order, recorded before they are sent.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._random, self._number = random.Random(3), 0
        self.of: dict[str, list[HistoryEvent]] = defaultdict(list)

    def send(self, users: list[str]) -> None:
        """Send one event of each user."""
        with Producer(self._settings) as producer:
            for user_id in users:
                self._send(producer, user_id)

    def _send(self, producer: Producer, user_id: str) -> None:
        self._number += 1
        kind, item, now = (
            self._random.choice(["view", "like"]),
            f"i{self._random.randrange(world.ITEMS)}",
            time.time(),
        )
        self.of[user_id].append(HistoryEvent(int(now), kind, item))
        producer.interaction(Interaction(f"e{self._number}", user_id, item, kind, now))

    def run(self, _thread: int) -> None:
        """Send four events at a time."""
        with Producer(self._settings) as producer:
            while not self.ended.wait(0.02):
                for _ in range(4):
                    self._send(producer, self._random.choice(USERS))


class Reads(Background):
    """Reads recommendations of USERS until the block is left.

    `answers`: the distinct complete answers; `failed`: all others.
    """

    def __init__(self, port: int) -> None:
        super().__init__(READERS)
        self._url = f"http://127.0.0.1:{port}"
        self.answers: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.failed: list[str] = []
        self.count = 0

    def run(self, number: int) -> None:
        """Read one answer after the other."""
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


def answer_problem(
    answer: dict[str, Any], recommender: Recommender, history: list[HistoryEvent], cap: int
) -> str | None:
    """What is wrong with an answer of ALS, or None.

    It must be the answer of its bundle to the user's first `as_of` events.
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
    scores = {line["item_id"]: line["score"] for line in answer["recommendations"]}
    allowed = TOLERANCE * max(1.0, *map(abs, expected.values()))
    off = {
        item: (score, expected.get(item))
        for item, score in scores.items()
        if abs(score - expected.get(item, np.inf)) > allowed
    }
    tenth = sorted(expected.values())[-10]
    if off or min(scores.values()) < tenth - allowed:
        which = f"{answer['model_version']} with {events} events of {answer['user_id']}"
        return f"{which}: {off or scores}"
    return None


@pytest.mark.process
@pytest.mark.timeout(800)
def test_ten_swaps_of_the_bundle_under_load_fail_no_read_and_lose_no_update(
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
        """Each bundle has another alpha, so that its scores differ from the others'.

        Some are worse, so the gate is overruled.
        """
        hyperparameters = small.model_copy(
            update={"als_alpha": 1.0 + number, "training_seed": number}
        )
        return retrain(
            hyperparameters,
            Options(items=entries, threads=1, force=True),
            Console(file=io.StringIO()),
        )

    deletions.mark_ready(redis)  # the first bundle is fitted before ingest has read the log
    versions = [retrained(0)]
    api = spawn("api", API_ADMIN_KEYS=ADMIN["x-api-key"], REFRESH_S="0.05", LIVE_READ_S="600")
    live = spawn("streams", "live", REFRESH_S="0.05", LIVE_READ_S="600")
    children = [api, spawn("streams", "ingest"), live]
    port = eventually(lambda: api.alive and port_of(api.log.read_text()), "the API serves", 60.0)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=ADMIN)

    def served(version: str) -> None:
        """Wait until `version` answers reads."""
        before = reads.count

        def is_serving() -> bool:
            for child in children:
                child.check()
            return (
                reads.count > before + READERS
                and client.get("/api/models").json()["serving"] == version
            )

        eventually(is_serving, f"{version} answers", 60.0)

    def swap(path: str, version: str) -> None:
        answer = client.post(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["live"] == version
        served(version)

    eventually(
        lambda: not client.get("/health/ready").json()["degraded"], "every part is loaded", 60.0
    )
    with Events(small) as events:
        eventually(
            lambda: all(
                int(redis.hget(keys.ONLY.user(user_id), "events") or 0) >= 5 for user_id in USERS
            ),
            "enough events for ALS",
            60.0,
        )
        with Reads(port) as reads:
            for number in range(1, ROUNDS + 1):
                before = versions[-1]
                versions.append(retrained(number))
                served(versions[-1])
                swap("/api/models/rollback", before)
                swap(f"/api/models/{versions[-1]}/promote", versions[-1])
    client.close()
    # 1. no failed read
    assert reads.failed == []
    assert reads.count > ROUNDS * 3 * READERS
    # 2. no answer that mixes two bundles
    by_als = [answer for answer in reads.answers.values() if answer["method_used"] == "als"]
    assert {answer["model_version"] for answer in by_als} == set(versions), (
        "every bundle has answered reads"
    )
    recommenders = {
        version: build(registry.load(version, strict=True), settings=small) for version in versions
    }

    def problems(serving: dict[str, Recommender]) -> list[str]:
        checked = (
            answer_problem(
                answer,
                serving[answer["model_version"]],
                events.of[answer["user_id"]],
                small.history_cap,
            )
            for answer in by_als
        )
        return [problem for problem in checked if problem is not None]

    assert problems(recommenders) == []
    shifted = dict(zip(versions, [*versions[1:], versions[0]], strict=True))
    assert (
        len(problems({version: recommenders[other] for version, other in shifted.items()}))
        > len(by_als) / 2
    ), "the check must find answers of another bundle"
    # 3. no update lost, and after another event a user has a vector of the last bundle
    model = live_model(small)

    def all_fresh() -> bool:
        stale = [user_id for user_id in USERS if not is_fresh(redis, small, model, user_id)]
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
