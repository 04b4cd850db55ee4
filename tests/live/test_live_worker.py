"""Live workers as processes: hints become vectors, factors of new items and dead letters."""

from __future__ import annotations

import re
import signal
import urllib.request

import psutil
import pytest
from confluent_kafka import Producer as KafkaProducer
from redis import Redis

from core.settings import Settings
from store.dead_letters import letters as dlq
from store.log import client as log
from store.log import model_updates
from store.log.producer import Producer
from store.state import keys
from testing.ports import free_port
from testing.process import ROOT
from tests.conftest import Spawn
from tests.live.processes import check_alive, live_and_ingest
from tests.live.world import event, is_fresh, live_model, publish
from tests.support import eventually


@pytest.mark.process
def test_the_vector_of_a_user_counts_all_events(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    children = live_and_ingest(settings, spawn)
    with Producer(settings) as producer:
        for number in range(10):
            producer.interaction(event("ann", f"item-{number}"))
    model = live_model(settings)

    def all_folded_in() -> bool:
        check_alive(*children)
        return redis.hget(keys.ONLY.user("ann"), "events") == b"10" and is_fresh(
            redis, settings, model, "ann"
        )

    eventually(all_folded_in, "a vector of all ten events", 60.0)
    own_nice = psutil.Process().nice()
    assert psutil.Process(children[0].pid).nice() == min(19, own_nice + 10), (
        "ingest and the API have priority"
    )
    assert psutil.Process(children[1].pid).nice() == own_nice
    children[0].signal(signal.SIGTERM)
    assert children[0].wait(20.0) == 0


@pytest.mark.process
def test_an_invalid_hint_becomes_a_dead_letter_and_others_are_folded_in(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    """Bytes that are no hint, a history that Eddyline did not write, and a key of another type."""
    redis.hset(keys.ONLY.user("strange"), "events", 1)
    redis.rpush(keys.ONLY.history("strange"), "yesterday")
    redis.set(keys.ONLY.user("alien"), "of another type")
    hints = [
        b"\xff not json",
        b'{"user": "ann"}',
        *(model_updates.encode([(name, "item-1")]) for name in ("strange", "alien")),
    ]
    port = free_port()
    children = live_and_ingest(settings, spawn, METRICS_PORT=str(port))
    with Producer(settings) as producer:
        for hint in hints:
            producer.raw(settings.model_updates_topic, b"0", hint, partition=0)
        producer.flush()
        for number in range(8):
            producer.interaction(event(f"user-{number}", "item-1"))
    model = live_model(settings)

    def all_processed() -> bool:
        check_alive(*children)
        return (
            all(is_fresh(redis, settings, model, f"user-{number}") for number in range(8))
            and len(letters()) == 4
        )

    def letters() -> list[str]:
        return sorted(
            letter.code
            for letter in dlq.read(settings).letters.values()
            if letter.topic == settings.model_updates_topic
        )

    eventually(all_processed, "good users folded in, and four dead letters", 60.0, every=0.5)
    assert letters() == ["bad_field", "not_folded_in", "not_folded_in", "not_json"]
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    counted = {
        name: float(value)
        for name, value in re.findall(
            r"^(eddyline_live_\w+_total(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE
        )
    }
    assert counted['eddyline_live_dead_letters_total{code="not_folded_in"}'] == 2
    assert counted["eddyline_live_users_folded_total"] >= 8


@pytest.mark.process
def test_hints_of_every_compression_are_read(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    kinds = ["none", "gzip", "lz4", "snappy", "zstd"]
    for kind in kinds:
        redis.hset(keys.ONLY.user(kind), "events", 1)
        redis.rpush(keys.ONLY.history(kind), "1732340000 like item-1")
        producer = KafkaProducer(log.client_config(settings) | {"compression.type": kind})
        # the client does not compress a message that would not become smaller
        hint = model_updates.encode([(kind, "item-1")] * 50)
        producer.produce(settings.model_updates_topic, hint, partition=0)
        assert producer.flush(20.0) == 0
    worker, model = spawn("streams", "live", LIVE_READ_S="0"), live_model(settings)

    def all_fresh() -> bool:
        check_alive(worker)
        return all(is_fresh(redis, settings, model, kind) for kind in kinds)

    eventually(all_fresh, "a vector of every user", 60.0)


@pytest.mark.process
def test_a_new_item_gets_factors_and_a_deleted_user_is_removed(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    """With its users in two of four shards; tests/live/fold_in has the same with one shard."""
    settings = settings.model_copy(update={"redis_shards": 4})
    children = live_and_ingest(settings, spawn)
    with Producer(settings) as producer:
        for name in ("ann", "cat"):
            for item in ("item-1", "item-2", "brand new"):
                producer.interaction(event(name, item))
        producer.flush()

        def factors(users: int) -> bool:
            check_alive(*children)
            return redis.hget(keys.Keys(0, 4).item_als("brand new"), "as_of") == b"%d" % users

        eventually(lambda: factors(2), "factors of the new item from both users", 60.0)
        producer.user("ann", None)
    eventually(lambda: factors(1), "factors from cat alone", 60.0)
    lists = redis.keys("*item:brand new:users")
    assert [redis.zrange(key, 0, -1) for key in lists] == [[b"cat"]]
    assert list(redis.scan_iter("*ann*")) == []


@pytest.mark.process
def test_the_command_line_of_faust_runs_the_same_app(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    children = [
        spawn(
            *("faust", "-A", "streams.live.faust_app", "worker", "--loglevel", "warn"),
            LIVE_READ_S="0",
        ),
        spawn("streams", "ingest"),
    ]
    with Producer(settings) as producer:
        producer.interaction(event("ann", "item-1"))

    def has_vector() -> bool:
        check_alive(*children)
        return bool(redis.exists(keys.ONLY.user_als("ann")))

    eventually(has_vector, "a vector", 60.0)
    assert not list(ROOT.glob("*-data")), "it writes nothing to disk"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9", "KAFKA_BOOTSTRAP_SERVERS"),
        ("RETRAIN_SCHEDULE", "daily", "RETRAIN_SCHEDULE"),
    ],
)
def test_a_setting_that_cannot_work_ends_the_start_with_one_line(
    settings: Settings, spawn: Spawn, broker: object, name: str, value: str, text: str
) -> None:
    child = spawn("streams", "live", KAFKA_TIMEOUT_S="1", START_TIMEOUT_S="1", **{name: value})
    assert child.wait(30.0) == 1
    assert text in child.tail(1)
    assert "Traceback" not in child.log.read_text()
