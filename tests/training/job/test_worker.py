"""A training worker answers every request once, also when workers are killed."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import structlog
from prometheus_client import REGISTRY
from redis import Redis
from rich.console import Console

from core.errors import BadEvent
from core.settings import Settings
from models.registry import Registry
from store.archive.archive import Archive
from store.dead_letters import letters as dlq
from store.log import client as log
from store.log import retrain_requests
from store.log.producer import Producer
from store.state import keys, retrains
from store.state.lease import Lease
from testing.process import Child, settings_environment
from tests.support import eventually
from tests.training import world
from training.job import first
from training.job.retrain import Options
from training.job.worker import Worker

Spawn = Callable[..., Child]
FOREVER = "1000000"
"""More sweeps than a test waits for."""


@contextmanager
def working(settings: Settings, **options: bool) -> Iterator[Worker]:
    """A worker in a thread of this process."""
    worker = Worker(settings, Options(), Console(file=io.StringIO()), **options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join()


def outcomes(*names: str) -> list[float]:
    return [
        REGISTRY.get_sample_value("eddyline_retrain_outcomes_total", {"outcome": name}) or 0.0
        for name in names
    ]


def spawned(spawn: Spawn, settings: Settings, **environment: str) -> Child:
    return spawn("training", "worker", **{**settings_environment(settings), **environment})


def versions(settings: Settings) -> list[str]:
    return Registry(settings.models_path).versions()


def test_a_retrain_answers_every_request_made_before_it_and_none_made_after(
    broker: object, trainer: Settings, redis: Redis
) -> None:
    for reason in ("first", "second", "third"):
        retrain_requests.send(trainer, "a test", reason)
    before = outcomes("published", "answered")
    with working(trainer):
        eventually(
            lambda: outcomes("answered")[0] == before[1] + 2,
            "the second and the third need no retrain of their own",
        )
        assert outcomes("published")[0] == before[0] + 1
        assert len(versions(trainer)) == 1
        last = retrains.last(redis)
        assert (last["status"], last["requested_by"], last["reason"]) == (
            "published",
            "a test",
            "first",
        )
        retrain_requests.send(trainer, "a test", "once more")
        eventually(
            lambda: len(versions(trainer)) == 2, "a request after the retrain gets one of its own"
        )
    age = REGISTRY.get_sample_value("eddyline_model_age_seconds")
    assert age is not None
    assert 0 <= age < 300


def test_an_invalid_request_becomes_a_dead_letter_and_the_next_one_is_answered(
    broker: object, trainer: Settings, redis: Redis
) -> None:
    log.ensure_topics(trainer)
    bad = [
        b"retrain, please",
        b"{}",
        b'{"requested_by":""}',
        b'{"requested_by":"' + b"x" * 20_000 + b'"}',
    ]
    with Producer(trainer) as producer:
        for value in bad:
            producer.raw(trainer.retrain_requests_topic, retrain_requests.KEY, value)
    retrain_requests.send(trainer, "a test")
    with working(trainer):
        eventually(lambda: versions(trainer), "the valid request is answered")
    assert [letter.code for letter in dlq.read(trainer).select()] == [
        "not_json",
        "bad_field",
        "bad_field",
        "too_large",
    ]


def test_a_failed_retrain_is_not_retried_and_the_next_request_is_answered(
    broker: object, trainer: Settings, redis: Redis
) -> None:
    full, empty = trainer.archive_url, trainer.archive_url + "-empty"
    nothing = trainer.model_copy(update={"archive_url": empty})
    retrain_requests.send(trainer, "a test")
    before = outcomes("failed", "published")
    with working(nothing):
        eventually(lambda: outcomes("failed")[0] == before[0] + 1, "there is nothing to train on")
    assert "holds no events to train on" in retrains.last(redis)["error"]
    retrain_requests.send(
        trainer.model_copy(update={"archive_url": full}), "a test", "events arrived"
    )
    with working(trainer):
        eventually(
            lambda: outcomes("published")[0] == before[1] + 1, "the next request is answered"
        )
        assert retrains.last(redis)["reason"] == "events arrived", (
            "the failed request is not retried"
        )


def test_a_request_waits_while_another_process_retrains(
    broker: object, trainer: Settings, redis: Redis
) -> None:
    retrain_requests.send(trainer, "a test")
    with (
        Lease(redis, retrains.LEASE, 120),
        structlog.testing.capture_logs() as logs,
        working(trainer),
    ):
        eventually(
            lambda: any(line["event"] == "lease_held_elsewhere" for line in logs),
            "the worker has read the request and waits",
            timeout=60,
        )
        assert versions(trainer) == []
    with working(trainer):
        eventually(
            lambda: versions(trainer),
            "the lease is free, so the request is answered",
            timeout=75,  # the broker may first wait for the session of the former worker to end
        )


def test_a_worker_makes_the_first_bundle_without_a_request(
    broker: object, trainer: Settings, redis: Redis
) -> None:
    with working(trainer, first=True):
        eventually(lambda: retrains.last(redis).get("status") == "published", "the first bundle")
    assert retrains.last(redis)["requested_by"] == "worker"


def test_a_worker_waits_for_the_first_events_and_says_so_once(
    broker: object,
    trainer: Settings,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first, "POLL_S", 0.01)
    empty = trainer.model_copy(update={"archive_url": trainer.archive_url + "-empty"})
    before = outcomes("failed")
    looks, positions = [], Archive.positions

    def count_looks(archive: Archive, topic: str) -> dict[int, int]:
        looks.append(topic)
        return positions(archive, topic)

    monkeypatch.setattr(Archive, "positions", count_looks)
    with structlog.testing.capture_logs() as logs, working(empty, first=True):
        eventually(lambda: len(looks) >= 3, "it looks again and again")
        assert retrains.last(redis) == {}, "no retrain starts without events"
        world.archived(empty, world.parity())
        eventually(
            lambda: retrains.last(redis).get("status") == "published", "the events make a bundle"
        )
    assert outcomes("failed") == before
    assert [line["event"] for line in logs].count("waiting_for_events") == 1


def test_a_first_bundle_that_fails_is_tried_again_with_further_events(
    trainer: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "POLL_S", 0.0)
    monkeypatch.setattr(first, "RETRY_S", 0.0)
    due = first.FirstBundle(trainer, Options())
    assert due.due()
    assert due.due(), "a try without an outcome, such as without Redis, is repeated"
    due.tried()
    assert not due.due(), "the same events fail again"
    Archive(trainer.archive_url).append(
        trainer.interactions_topic, 2, 0, 1, world.table_of([world.row(0, "u", "i")])
    )
    assert due.due()


@pytest.mark.process
def test_another_worker_answers_the_request_of_a_killed_one(
    broker: object, trainer: Settings, redis: Redis, spawn: Spawn
) -> None:
    first = spawned(spawn, trainer, ALS_ITERATIONS=FOREVER)
    retrain_requests.send(trainer, "a test", "must not be lost")
    eventually(
        lambda: "sweep" in retrains.last(redis).get("progress", ""),
        "the first worker fits and reports its progress",
        timeout=60,
    )
    first.kill()
    assert retrains.last(redis)["status"] in {"running", "died"}
    eventually(lambda: retrains.last(redis)["status"] == "died", "the status shows that it died")
    assert versions(trainer) == []
    spawned(spawn, trainer)
    eventually(
        lambda: retrains.last(redis)["status"] == "published",
        "another worker answers the request",
        timeout=90,
    )
    assert retrains.last(redis)["reason"] == "must not be lost"
    assert len(versions(trainer)) == 1


@pytest.mark.process
def test_a_worker_stops_between_sweeps_on_sigterm_and_leaves_the_request(
    broker: object, trainer: Settings, redis: Redis, spawn: Spawn
) -> None:
    first = spawned(spawn, trainer, ALS_ITERATIONS=FOREVER)
    retrain_requests.send(trainer, "a test")
    eventually(
        lambda: "sweep" in retrains.last(redis).get("progress", ""),
        "the first worker fits",
        timeout=60,
    )
    first.signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert retrains.last(redis)["status"] == "interrupted"
    assert redis.get(keys.ONLY.lease(retrains.LEASE)) is None, "the lease is released"
    assert versions(trainer) == []
    spawned(spawn, trainer)
    eventually(
        lambda: retrains.last(redis)["status"] == "published",
        "another worker answers the request",
        timeout=90,
    )


@pytest.mark.parametrize(
    ("fields", "offset", "end", "expected"),
    [
        ({"status": "published", "answers": '{"2":7}'}, 6, 9, True),
        ({"status": "refused", "answers": '{"2":7}'}, 6, 9, True),
        ({"status": "published", "answers": '{"2":7}'}, 7, 9, False),
        ({"status": "published", "answers": '{"1":7}'}, 6, 9, False),
        ({"status": "failed", "answers": '{"2":7}'}, 6, 9, False),
        ({"status": "died", "answers": '{"2":7}'}, 6, 9, False),
        ({"status": "published", "answers": '{"2":7}'}, 2, 3, False),  # the topic was created anew
        ({"status": "published"}, 0, 1, False),  # by hand: it has no positions of requests
        ({}, 0, 1, False),
    ],
)
def test_a_retrain_answers_the_requests_below_its_positions(
    fields: dict[str, str], offset: int, end: int, expected: bool
) -> None:
    assert retrains.answered(fields, 2, offset, end) is expected


def test_a_request_is_decoded_as_it_was_encoded() -> None:
    sent = retrain_requests.decode(retrain_requests.encode("ops", "why not"))
    assert (sent.requested_by, sent.reason) == ("ops", "why not")
    for value in (None, b"", b"[]", b"\xff", b'{"requested_by":1}'):
        with pytest.raises(BadEvent):
            retrain_requests.decode(value)
