"""Processes start while their servers are away, and log one line at each end of an outage."""

from __future__ import annotations

import json
import signal
import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis

from core.settings import Settings
from store.log import client as log
from store.log.producer import Producer
from store.outage import SETTLE_S
from store.state import keys
from streams.retry import Retry
from testing.apache import KafkaBroker
from testing.ports import free_port
from testing.process import Child
from testing.redis import RedisServer
from testing.tansu import TansuBroker
from tests.conftest import Spawn
from tests.live.world import event
from tests.streams.ingest.test_partitions_added_under_load import batches, lines
from tests.support import eventually

PROCESSES = [
    ("streams", "ingest"),
    ("streams", "archive"),
    ("streams", "live"),
    ("training", "worker"),
]
WORKS = {
    "ingest": "partition_assigned",
    "archive": "partitions_assigned",
    "worker": "waiting_for_requests",
}


def warnings(child: Child) -> list[dict[str, object]]:
    """The log lines from `warning` up."""
    log_lines = [
        json.loads(line) for line in child.log.read_text().splitlines() if line.startswith("{")
    ]
    return [line for line in log_lines if line.get("level") not in ("debug", "info")]


def sent_hints(settings: Settings) -> int:
    """The number of hints in the log."""
    consumer = Consumer(log.consumer_config(settings, "hints"))
    topic, partitions = settings.model_updates_topic, range(settings.topic_partitions)
    ends = [
        consumer.get_watermark_offsets(TopicPartition(topic, number), 10.0)[1]
        for number in partitions
    ]
    consumer.close()
    return sum(ends)


def send_and_await_hint(settings: Settings, redis: Redis, user_id: str) -> None:
    """Send an event of a user, and wait until it counts and ingest has sent its hint."""
    before = sent_hints(settings)
    with Producer(settings) as producer:
        producer.interaction(event(user_id, "item-1"))
    eventually(lambda: redis.exists(keys.ONLY.user(user_id)), f"{user_id}'s event counted", 60.0)
    eventually(lambda: sent_hints(settings) > before, f"a hint of {user_id}")


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process[1])
def test_a_process_without_its_servers_ends_after_the_timeout_with_one_line(
    settings: Settings, redis: Redis, spawn: Spawn, process: tuple[str, str]
) -> None:
    child = spawn(*process, START_TIMEOUT_S="2")
    assert child.wait(60) == 1
    output = child.log.read_text()
    assert len(lines(child, "start_waits")) == 1
    (started,) = lines(child, "process_started")
    assert started["kafka"] == settings.kafka_bootstrap_servers
    assert started["models"] == str(settings.models_path)
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "START_TIMEOUT_S=2" in error
    assert settings.kafka_bootstrap_servers in error
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "process", [("streams", "ingest"), ("streams", "live")], ids=lambda process: process[1]
)
def test_a_stop_ends_the_wait(
    settings: Settings, redis: Redis, spawn: Spawn, process: tuple[str, str]
) -> None:
    child = spawn(*process)
    eventually(lambda: lines(child, "start_waits"), "it waits")
    child.signal(signal.SIGTERM)
    assert child.wait(60) == 0


@pytest.mark.parametrize(
    "process",
    [process for process in PROCESSES if process[1] in WORKS],
    ids=lambda process: process[1],
)
def test_a_process_continues_its_start_when_the_broker_answers(
    settings: Settings,
    redis: Redis,
    spawn: Spawn,
    own_broker: KafkaBroker | TansuBroker,
    process: tuple[str, str],
) -> None:
    own_broker.stop()
    child = spawn(*process)
    eventually(lambda: lines(child, "start_waits"), "it waits")
    own_broker.start()
    eventually(lambda: lines(child, WORKS[process[1]]), "at work")
    assert len(lines(child, "start_waits")) == len(lines(child, "start_continues")) == 1


def test_a_process_continues_its_start_when_redis_answers(
    broker: object, settings: Settings, own_redis_server: RedisServer, spawn: Spawn
) -> None:
    own_redis_server.stop()
    child = spawn("streams", "ingest")
    eventually(lambda: lines(child, "start_waits"), "it waits")
    assert "Redis" in str(lines(child, "start_waits")[0]["error"])
    own_redis_server.start()
    eventually(lambda: lines(child, "partition_assigned"), "at work")


def test_an_error_that_waiting_cannot_fix_ends_the_start_at_once(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    redis.hset(keys.ONLY.settings, "dedup_window", "7")
    child = spawn("streams", "ingest")
    assert child.wait(30) == 1
    assert lines(child, "start_waits") == []


@pytest.mark.apache
@pytest.mark.timeout(360)
def test_an_outage_of_the_broker_is_two_log_lines_in_each_process(
    settings: Settings, redis: Redis, spawn: Spawn, own_broker: KafkaBroker
) -> None:
    log.ensure_topics(settings)
    port = free_port()
    children = {name: spawn("streams", name) for name in ("ingest", "archive")}
    children["live"] = spawn("streams", "live", METRICS_PORT=str(port))
    children |= {"worker": spawn("training", "worker"), "api": spawn("api")}
    with Producer(settings) as producer:
        producer.interaction(event("ann", "item-1"))
    eventually(lambda: redis.exists(keys.ONLY.user("ann")), "an event counted", 60.0)
    eventually(lambda: lines(children["archive"], "partitions_assigned"), "archive at work")
    eventually(lambda: batches(children["live"], port) >= 1, "live at work", 60.0)
    eventually(lambda: lines(children["worker"], "waiting_for_requests"), "worker at work")
    eventually(lambda: lines(children["api"], "api_started"), "the API answers")
    own_broker.kill()
    for name, child in children.items():
        eventually(
            lambda child=child: lines(child, "server_unavailable"), f"{name} logs the outage"
        )
    own_broker.start()
    with Producer(settings) as producer:
        producer.interaction(event("bob", "item-1"))
    eventually(
        lambda: redis.exists(keys.ONLY.user("bob")), "an event counted after the outage", 60.0
    )
    for name, child in children.items():
        (end,) = eventually(
            lambda child=child: lines(child, "server_available"), f"{name} logs the end", 60.0
        )
        assert (end["server"], len(lines(child, "server_unavailable"))) == ("kafka", 1), name
        assert float(str(end["outage_s"])) > 1
        others = [line for line in warnings(child) if line["event"] != "server_unavailable"]
        assert len(others) <= 3, others
        noise = [line for line in child.log.read_text().splitlines() if "brokers are down" in line]
        assert len(noise) <= 1, noise


@pytest.mark.apache
@pytest.mark.timeout(360)
def test_the_first_event_after_an_outage_is_over_does_not_log_it_again(
    settings: Settings, redis: Redis, spawn: Spawn, own_broker: KafkaBroker
) -> None:
    child = spawn("streams", "ingest")
    eventually(lambda: len(lines(child, "partition_assigned")) == 12, "at work")
    send_and_await_hint(settings, redis, "ann")
    own_broker.kill()
    eventually(lambda: lines(child, "server_unavailable"), "it logs the outage")
    own_broker.start()
    eventually(lambda: lines(child, "server_available"), "it logs the end", 60.0)
    over = time.monotonic()
    eventually(lambda: time.monotonic() > over + 2 * SETTLE_S, "the outage is over")
    send_and_await_hint(settings, redis, "bob")
    assert len(lines(child, "server_unavailable")) == len(lines(child, "server_available")) == 1


@pytest.mark.timeout(240)
def test_an_outage_of_redis_is_two_log_lines(
    broker: object, settings: Settings, own_redis_server: RedisServer, spawn: Spawn
) -> None:
    child = spawn("streams", "ingest")
    eventually(lambda: len(lines(child, "partition_assigned")) == 12, "at work")
    own_redis_server.kill()
    with Producer(settings) as producer:
        for number in range(40):
            producer.interaction(event(f"user-{number}", "item-1"))
    eventually(lambda: lines(child, "server_unavailable"), "it logs the outage")
    own_redis_server.start()
    with Redis.from_url(own_redis_server.url) as redis:
        eventually(
            lambda: all(redis.exists(keys.ONLY.user(f"user-{number}")) for number in range(40)),
            "all counted",
        )
    (end,) = eventually(lambda: lines(child, "server_available"), "it logs the end")
    assert (end["server"], len(lines(child, "server_unavailable"))) == ("redis", 1)
    assert len(warnings(child)) == 1, warnings(child)


def test_failures_between_the_first_and_the_last_are_not_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import threading

    from core.errors import StoreUnavailable

    failures = [StoreUnavailable("away")] * 5

    def call() -> str:
        if failures:
            raise failures.pop()
        return "result"

    assert Retry(threading.Event())("asking", call) == "result"
    output = capsys.readouterr().out
    assert output.count("[warning") == 1
    assert output.count("server_available") == 1
    assert "failures=5" in output
