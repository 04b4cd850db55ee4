"""The model plane as processes: ingest names who changed, live workers fold them in, whatever dies
meanwhile.
"""

from __future__ import annotations

import re
import signal
import urllib.request

import psutil
import pytest
from confluent_kafka import Producer as KafkaProducer
from redis import Redis

from core.settings import Settings
from models.als import ALSModel
from models.registry import Registry
from store.log import client as log
from store.log import model_updates
from store.log.producer import Producer
from store.state import keys
from streams.dead_letters import letters as dlq
from testing.apache import KafkaBroker
from testing.ports import free_port
from testing.process import ROOT, Child
from testing.redis import RedisServer
from tests.conftest import Spawn
from tests.live.world import Flow, event, is_fresh, last_events, live_model, publish, wrong
from tests.support import eventually


def all_alive(*children: Child) -> None:
    for child in children:
        child.check()


def all_fresh(
    redis: Redis, settings: Settings, model: ALSModel, *children: Child, timeout: float = 60.0
) -> None:
    """Wait until every user of a Flow has a vector of `model` and of all their events."""

    def there() -> bool:
        all_alive(*children)
        return all(is_fresh(redis, settings, model, user) for user in Flow.USERS)

    eventually(there, "a fresh vector of every user", timeout)


def read_until(
    redis: Redis, settings: Settings, models: dict[str, ALSModel], there: object, what: str
) -> None:
    """Look at everybody's vector again and again until `there()`."""

    def looked() -> object:
        for user in Flow.USERS:
            assert (problem := wrong(redis, settings, models, user)) is None, problem
        return there()  # type: ignore[operator]

    eventually(looked, what, 60.0)


@pytest.mark.process
def test_ten_events_of_a_user_all_reach_the_vector(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    children = [spawn("streams", "live"), spawn("streams", "ingest")]
    with Producer(settings) as producer:
        for number in range(10):
            producer.interaction(event("ann", f"item-{number}"))
    model = live_model(settings)

    def there() -> bool:
        all_alive(*children)
        return redis.hget(keys.user("ann"), "events") == b"10" and is_fresh(
            redis, settings, model, "ann"
        )

    eventually(there, "a vector of all ten events", 60.0)
    mine = psutil.Process().nice()
    assert psutil.Process(children[0].pid).nice() == min(19, mine + 10), (
        "it gives way to ingest and the API"
    )
    assert psutil.Process(children[1].pid).nice() == mine
    children[0].signal(signal.SIGTERM)
    assert children[0].wait(20.0) == 0


@pytest.mark.process
@pytest.mark.timeout(240)
def test_a_worker_dies_and_bundles_change_and_no_vector_is_ever_wrong(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    models: dict[str, ALSModel] = {}

    def live(seed: int, items: int = 40) -> None:
        version = publish(settings, seed, items)
        models[version] = live_model(settings)

    def folded_by(version: str) -> bool:
        return any(
            redis.hget(keys.user_als(user), "version") == version.encode() for user in Flow.USERS
        )

    live(1)
    ingest, doomed, heir = (
        spawn("streams", "ingest"),
        spawn("streams", "live"),
        spawn("streams", "live"),
    )
    with Flow(settings):
        first = next(iter(models))
        read_until(redis, settings, models, lambda: folded_by(first), "vectors of the first bundle")
        live(2)
        second = list(models)[1]
        read_until(
            redis, settings, models, lambda: folded_by(second), "vectors of the second bundle"
        )
        doomed.kill()
        live(3, items=43)
        third = list(models)[2]
        read_until(redis, settings, models, lambda: folded_by(third), "vectors of the third bundle")
        Registry(settings.models_path).rollback()
        before = redis.hget(keys.user("user-0"), "events")
        read_until(
            redis,
            settings,
            models,
            lambda: redis.hget(keys.user("user-0"), "events") != before,
            "more events",
        )
    last_events(settings)
    all_fresh(redis, settings, models[second], ingest, heir)


@pytest.mark.process
def test_poison_stops_nobody_and_is_kept(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    """Three kinds: bytes that are no hint, a user whose history Eddyline did not write, and a key
    of another type.
    """
    log.ensure_topics(settings)
    publish(settings, seed=1)
    redis.hset(keys.user("strange"), "events", 1)
    redis.rpush(keys.history("strange"), "yesterday")
    redis.set(keys.user("alien"), "of another type")
    hints = [
        b"\xff not json",
        b'{"user": "ann"}',
        *(model_updates.encode([(name, "item-1")]) for name in ("strange", "alien")),
    ]
    port = free_port()
    children = [spawn("streams", "live", METRICS_PORT=str(port)), spawn("streams", "ingest")]
    with Producer(settings) as producer:
        for hint in hints:
            producer.raw(settings.model_updates_topic, b"0", hint, partition=0)
        producer.flush()
        for number in range(8):
            producer.interaction(event(f"user-{number}", "item-1"))
    model = live_model(settings)

    def there() -> bool:
        all_alive(*children)
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

    eventually(there, "good users folded in, and four dead letters", 60.0, every=0.5)
    assert letters() == ["bad_field", "not_folded_in", "not_folded_in", "not_json"]
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    counted = {
        name: float(value)
        for name, value in re.findall(
            r"^(eddyline_live_\w+_total(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE
        )
    }
    assert counted['eddyline_live_dead_letters_total{code="not_folded_in"}'] == 2
    assert counted["eddyline_live_users_folded_total"] >= 8


@pytest.mark.process
def test_a_hint_is_read_whatever_its_compression(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    kinds = ["none", "gzip", "lz4", "snappy", "zstd"]
    for kind in kinds:
        redis.hset(keys.user(kind), "events", 1)
        redis.rpush(keys.history(kind), "1732340000 like item-1")
        producer = KafkaProducer(log.client_config(settings) | {"compression.type": kind})
        # the client leaves alone what compression would not make smaller
        hint = model_updates.encode([(kind, "item-1")] * 50)
        producer.produce(settings.model_updates_topic, hint, partition=0)
        assert producer.flush(20.0) == 0
    worker, model = spawn("streams", "live"), live_model(settings)

    def there() -> bool:
        all_alive(worker)
        return all(is_fresh(redis, settings, model, kind) for kind in kinds)

    eventually(there, "a vector of every user", 60.0)


@pytest.mark.process
def test_redis_away_costs_freshness_only(
    settings: Settings, own_redis_server: RedisServer, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    children = [spawn("streams", "live"), spawn("streams", "ingest")]
    model = live_model(settings)
    with Flow(settings):
        with Redis.from_url(own_redis_server.url) as redis:
            eventually(lambda: redis.exists(keys.user_als("user-0")), "a first vector", 60.0)
        own_redis_server.kill()
        eventually(
            lambda: "server_unavailable" in children[0].log.read_text(),
            "the worker to meet its absence",
        )
        own_redis_server.start()
    with Redis.from_url(own_redis_server.url) as redis:
        last_events(settings)
        all_fresh(redis, settings, model, *children)


@pytest.mark.process
def test_a_new_item_gets_factors_and_a_deleted_user_leaves_nothing(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    children = [spawn("streams", "live"), spawn("streams", "ingest")]
    with Producer(settings) as producer:
        for name in ("ann", "bob"):
            for item in ("item-1", "item-2", "brand new"):
                producer.interaction(event(name, item))
        producer.flush()

        def factors(users: int) -> bool:
            all_alive(*children)
            return redis.hget(keys.item_als("brand new"), "as_of") == str(users).encode()

        eventually(lambda: factors(2), "factors of the new item from both users", 60.0)
        producer.user("ann", None)
    eventually(lambda: factors(1), "factors from bob alone", 60.0)
    assert redis.zrange(keys.item_users("brand new"), 0, -1) == [b"bob"]
    assert list(redis.scan_iter("*ann*")) == []


@pytest.mark.apache
@pytest.mark.timeout(240)
def test_a_broker_that_dies_costs_freshness_only(
    settings: Settings, redis: Redis, spawn: Spawn, own_broker: KafkaBroker
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    children = [spawn("streams", "live"), spawn("streams", "ingest")]
    last_events(settings)
    eventually(lambda: redis.exists(keys.user_als("user-0")), "a first vector", 60.0)
    own_broker.kill()
    eventually(
        lambda: "server_unavailable" in children[0].log.read_text(),
        "the worker to meet its absence",
    )
    own_broker.start()
    last_events(settings, number=2)
    eventually(
        lambda: redis.hget(keys.user("user-0"), "events") == b"2", "the events after it", 60.0
    )
    all_fresh(redis, settings, live_model(settings), *children)


@pytest.mark.process
def test_faust_s_own_command_line_runs_the_same_app(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    children = [
        spawn("faust", "-A", "streams.live.faust_app", "worker", "--loglevel", "warn"),
        spawn("streams", "ingest"),
    ]
    with Producer(settings) as producer:
        producer.interaction(event("ann", "item-1"))

    def there() -> bool:
        all_alive(*children)
        return bool(redis.exists(keys.user_als("ann")))

    eventually(there, "a vector", 60.0)
    assert not list(ROOT.glob("*-data")), "it keeps nothing on disk"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9", "KAFKA_BOOTSTRAP_SERVERS"),
        ("RETRAIN_SCHEDULE", "daily", "RETRAIN_SCHEDULE"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    settings: Settings, spawn: Spawn, broker: object, name: str, value: str, text: str
) -> None:
    child = spawn("streams", "live", KAFKA_TIMEOUT_S="1", START_TIMEOUT_S="1", **{name: value})
    assert child.wait(30.0) == 1
    assert text in child.tail(1)
    assert "Traceback" not in child.log.read_text()
