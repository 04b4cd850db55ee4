"""Ingest at the edges of a log: records that retention removed, transactions, and a topic that was
created anew under the same name.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterable

import pytest
from confluent_kafka import Producer as KafkaProducer
from redis import Redis

from core.codec import encode_json
from core.settings import Settings
from core.types import Interaction, Item, User
from store.archive.archive import Archive
from store.log.producer import Producer
from testing.ports import free_port
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import assert_stops
from tests.exactly_once.conftest import Ingest, caught_up, ends
from tests.exactly_once.traffic import Traffic
from tests.support import eventually
from tests.topics import recreate, trim, use_retention

pytestmark = [pytest.mark.apache, pytest.mark.timeout(360)]


def _fill(settings: Settings, seed: int, count: int = 400) -> None:
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, count)
        for number in range(12):
            producer.item(
                f"startup:{number}", Item(item_id=f"startup:{number}", item_type="startup")
            )
            producer.user(f"user-{number}", User(user_id=f"user-{number}", interests=["energy"]))


def _event(number: int, user_id: str = "u") -> Interaction:
    return Interaction(f"e{number}", user_id, f"item-{number % 7}", "view", time.time())


def test_a_first_start_on_a_trimmed_log_counts_what_the_log_holds(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    _fill(settings, seed)
    for topic in (settings.items_topic, settings.users_topic):
        use_retention(settings, topic)
    for topic in (settings.interactions_topic, settings.items_topic, settings.users_topic):
        trim(
            settings,
            topic,
            {partition: min(end, 2) for partition, end in ends(settings, topic).items()},
        )
    child = ingest()
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)
    assert "log_begins_late" in child.log.read_text()
    child.stop()
    redis.flushall()  # with a log that starts even later, and no archive
    trim(
        settings,
        settings.interactions_topic,
        {partition: end - 1 for partition, end in ends(settings).items()},
    )
    _fill(settings, seed + 1, 50)
    caught_up(redis, settings, ingest())
    oracle.assert_equal(redis, settings)


def test_ingest_starts_at_the_end_of_a_log_that_retention_emptied(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    _fill(settings, seed, 100)
    trim(settings, settings.interactions_topic, ends(settings))
    first = ingest()
    caught_up(redis, settings, first)
    first.stop()
    _fill(settings, seed + 1, 50)
    # nothing was ever applied, so nothing is missing
    trim(settings, settings.interactions_topic, ends(settings))
    second = ingest()
    _fill(settings, seed + 2, 100)
    caught_up(redis, settings, second)
    oracle.assert_equal(redis, settings)


def test_ingest_stops_when_retention_removed_events_before_they_were_applied(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    _fill(settings, seed, 100)
    first = ingest()
    caught_up(redis, settings, first)
    first.stop()
    _fill(settings, seed + 1, 100)
    trim(settings, settings.interactions_topic, ends(settings))
    assert_stops(ingest(), "it has lost")


@pytest.mark.parametrize(
    ("topic", "refilled"),
    [("interactions_topic", 60), ("interactions_topic", 1000), ("items_topic", 1)],
)
def test_a_topic_created_anew_stops_a_running_ingest(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, topic: str, refilled: int
) -> None:
    """Refilled below, exactly at, and far beyond the position of ingest."""
    name = getattr(settings, topic)
    one = settings.model_copy(update={"topic_partitions": 1})
    recreate(one, name)

    def fill(count: int, prefix: str) -> None:
        with Producer(settings) as producer:
            for number in range(count):
                item_id = f"{prefix}-{number}"
                if topic == "items_topic":
                    producer.item(item_id, Item(item_id=item_id, item_type="startup"))
                else:
                    producer.interaction(
                        Interaction(f"{prefix}{number}", f"u{number}", item_id, "view", time.time())
                    )

    fill(60, "old")
    child = ingest()
    eventually(lambda: oracle.positions(redis, settings, name)[0] == 60, "ingest at the end")
    recreate(one, name)
    fill(refilled, "new")
    assert_stops(child, "was created anew")
    assert_stops(ingest(), "rebuild --wipe --from-log")


def test_a_topic_created_anew_before_any_event_was_applied_is_read_from_its_start(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    child = ingest()
    assigned = 3 * settings.topic_partitions

    def placements() -> int:
        return child.log.read_text().count("partition_assigned")

    eventually(lambda: placements() >= assigned, "ingest waits for events")
    recreate(settings, settings.interactions_topic)
    eventually(
        lambda: placements() >= assigned + settings.topic_partitions,
        "ingest places the partitions again",
    )
    _fill(settings, seed, 300)
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)


class Transactions:
    """A transactional producer of events and catalogue entries."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.producer = KafkaProducer(
            {
                "bootstrap.servers": settings.kafka_bootstrap_servers,
                "transactional.id": f"transactions-{settings.interactions_topic}",
                "partitioner": "murmur2_random",
            }
        )
        self.producer.init_transactions(30)

    def send(self, numbers: Iterable[int]) -> None:
        """Within a transaction: events of many users and one item each."""
        self.producer.begin_transaction()
        for number in numbers:
            event = _event(number, f"u{number % 40}")
            self.producer.produce(
                self._settings.interactions_topic,
                key=event.user_id.encode(),
                value=encode_json(event),
            )
        item = Item(item_id=f"i{number}", item_type="startup")
        self.producer.produce(
            self._settings.items_topic, key=item.item_id.encode(), value=encode_json(item)
        )
        self.producer.flush()


def _lag(port: int) -> dict[str, float]:
    """Lag by topic and partition, in the /metrics of ingest."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        name: float(value)
        for name, value in re.findall(
            r"^eddyline_ingest_lag_events(\{.*\}) (.*)$", text, re.MULTILINE
        )
    }


def test_committed_transactions_count_and_leave_no_lag(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    transactions, port = Transactions(settings), free_port()
    child = ingest(METRICS_PORT=str(port))

    def archive() -> None:
        archiver = spawn("streams", "archive", "--until-idle")
        assert archiver.wait(60) == 0, archiver.describe("failed")
        assert not oracle.archive_differences(settings, oracle.record(settings))

    for first, end in ((0, 100), (100, 200), (200, 300)):
        transactions.send(range(first, end))
        if first == 100:
            transactions.producer.abort_transaction()
        else:
            transactions.producer.commit_transaction()
    caught_up(redis, settings, child)
    assert oracle.assert_equal(redis, settings).counted == 200
    eventually(lambda: set(_lag(port).values()) == {0.0}, "no lag after the last control record")
    transactions.send(range(300, 400))
    archive()  # ends although a transaction is open
    child.kill()
    transactions.producer.commit_transaction()
    transactions.send(range(400, 450))
    transactions.producer.abort_transaction()
    child = ingest(METRICS_PORT=str(port))
    caught_up(redis, settings, child)
    assert oracle.assert_equal(redis, settings).counted == 300
    eventually(lambda: set(_lag(port).values()) == {0.0}, "no lag after an aborted transaction")
    archive()
    assert Archive(settings.archive_url).positions(settings.interactions_topic) == ends(settings)
    child.kill()
    # removes control records and aborted events, too
    trim(settings, settings.interactions_topic, ends(settings))
    transactions.send(range(450, 500))
    transactions.producer.commit_transaction()
    child = ingest()
    eventually(lambda: redis.hlen("items") == 4, "the catalogue")
    eventually(lambda: oracle.positions(redis, settings) == ends(settings), "ingest goes on")
    archive_again = spawn("streams", "archive", "--until-idle")
    assert archive_again.wait(60) == 0, archive_again.describe("failed")
