"""Partitions that are added to topics under load are read everywhere within half a minute, and
nothing is lost or counted twice.
"""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from functools import partial
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]
from redis import Redis

from core.murmur2 import partitions_of
from core.settings import Settings
from core.types import Interaction
from store.archive.archive import Archive
from store.log import client as log
from store.log.producer import Producer
from store.log.topics import partitions
from store.state import keys
from streams.inspection import views
from streams.live import schedules
from testing.ports import free_port
from testing.process import Child
from tests.api.world import FOR_DEVELOPER, event, publish, serving, until_missing
from tests.conftest import Spawn
from tests.support import eventually

pytestmark = [pytest.mark.apache, pytest.mark.timeout(360)]

NOTICED_S = 30.0
"""Seconds within which added partitions are read."""


def add_partitions(settings: Settings, topic: str, count: int) -> None:
    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    for future in client.create_partitions([NewPartitions(topic, count)]).values():
        future.result(20)


def user_of(partition: int, partitions: int) -> str:
    """A user whose events belong into `partition` of `partitions`."""
    return next(
        name
        for name in map("user-{}".format, range(1000))
        if partitions_of([name.encode()], partitions)[0] == partition
    )


def lines(child: Child, name: str) -> list[dict[str, object]]:
    """The log events `name` of a child."""
    entries = [
        json.loads(line) for line in child.log.read_text().splitlines() if line.startswith("{")
    ]
    return [entry for entry in entries if entry.get("event") == name]


def metric(port: int, name: str) -> dict[str, float]:
    """The samples of a metric by labels."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    return {
        labels: float(value)
        for labels, value in re.findall(rf"^{name}(\S*) (\S+)$", text, re.MULTILINE)
    }


class Load:
    """Events of 40 users, sent by one producer for as long as the block lasts."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._stopped = settings, threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.sent: dict[str, int] = {}

    def _run(self) -> None:
        with Producer(self._settings) as producer:
            while not self._stopped.wait(0.02):
                for number in range(5):
                    user = f"user-{(sum(self.sent.values()) + number) % 40}"
                    producer.interaction(
                        Interaction(str(uuid4()), user, "item-1", "view", time.time())
                    )
                    self.sent[user] = self.sent.get(user, 0) + 1

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def counted(redis: Redis, sent: dict[str, int]) -> dict[str, int]:
    return {user: int(redis.hget(keys.ONLY.user(user), "events") or 0) for user in list(sent)}  # type: ignore[arg-type]


def test_partitions_added_under_load_are_read_by_every_process(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    port = free_port()
    ingest = spawn("streams", "ingest", METRICS_PORT=str(port))
    archive = spawn("streams", "archive", ARCHIVE_FILE_S="1")
    topic = settings.interactions_topic
    own_archive = Archive(settings.archive_url)
    publish(settings)
    with Load(settings) as load, serving(settings, api_after_s=20.0, api_timeout_s=30.0) as client:
        eventually(
            lambda: sum(counted(redis, load.sent).values()) > 100,
            "events of the first partitions counted",
        )
        eventually(
            lambda: len(own_archive.positions(topic)) == 4,
            "the first partitions archived",
            every=0.5,
        )
        until_missing(client)
        add_partitions(settings, topic, 8)
        with Producer(settings) as producer:  # a new producer knows all eight partitions at once
            token = producer.publish(
                topic, user_of(5, 8).encode(), producer_event(user_of(5, 8))
            ).result(20)
        load.sent[user_of(5, 8)] = load.sent.get(user_of(5, 8), 0) + 1
        assert token.startswith(f"{topic}:5:")
        answer = client.get(f"{FOR_DEVELOPER}/{user_of(5, 8)}?after={token}")
        assert (answer.status_code, answer.json().get("stale")) == (200, False), answer.text
        eventually(
            lambda: all(
                redis.hget(keys.ONLY.position(topic, number), "position") for number in range(8)
            ),
            "all read",
            NOTICED_S,
        )
        eventually(
            lambda: len(own_archive.positions(topic)) == 8,
            "all archived",
            NOTICED_S,
            0.5,
        )
        own = client.write("POST", "/api/events", event(user_id=user_of(7, 8))).json()["results"][
            0
        ]["token"]
        assert client.get(f"{FOR_DEVELOPER}/{user_of(7, 8)}?after={own}").status_code == 200
    for child in (ingest, archive):
        (line,) = eventually(
            partial(lines, child, "partitions_added"), f"{child.name} logs them", NOTICED_S
        )
        assert (line["topic"], line["before"], line["partitions"], line["added"]) == (
            topic,
            4,
            8,
            [4, 5, 6, 7],
        )
    load.sent[user_of(7, 8)] = load.sent.get(user_of(7, 8), 0) + 1
    eventually(lambda: counted(redis, load.sent) == load.sent, "each event counted once")
    eventually(
        lambda: set(metric(port, "eddyline_ingest_topic_lag_events").values()) == {0.0},
        "no lag",
    )
    assert not lines(ingest, "events_in_foreign_partitions"), (
        "users whose partition changed are not foreign"
    )


def producer_event(user_id: str) -> bytes:
    from core.codec import encode_json

    return encode_json(Interaction(str(uuid4()), user_id, "item-1", "view", time.time()))


def test_the_lag_includes_partitions_that_are_not_assigned_yet(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    """The group rebalances some time after partitions are added: until then they are not read."""
    log.ensure_topics(settings)
    port = free_port()
    ingest = spawn("streams", "ingest", METRICS_PORT=str(port))
    topic = settings.interactions_topic
    eventually(lambda: len(lines(ingest, "partition_assigned")) >= 12, "all partitions assigned")
    add_partitions(settings, topic, 6)
    with Producer(settings) as producer:
        for _ in range(50):
            producer.raw(topic, b"u", producer_event("u"), partition=5)
    label = f'{{topic="{topic}"}}'
    lags: list[float] = []

    def caught_up() -> bool:
        lags.append(metric(port, "eddyline_ingest_topic_lag_events").get(label, 0.0))
        return redis.hget(keys.ONLY.user("u"), "events") == b"50"

    eventually(caught_up, "the new partition read", NOTICED_S)
    assert max(lags) > 0
    rows = {
        row["partition"]: row
        for row in views.partition_positions(settings)
        if row["topic"] == topic
    }
    assert sorted(rows) == [0, 1, 2, 3, 4, 5]
    eventually(
        lambda: metric(port, "eddyline_ingest_topic_lag_events")[label] == 0.0, "no lag", 20.0
    )


def test_partitions_added_to_items_and_users_are_read(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    publish(settings)
    ingest = spawn("streams", "ingest")
    with serving(settings, api_after_s=20.0, api_timeout_s=30.0) as client:
        until_missing(client)
        eventually(
            lambda: len(lines(ingest, "partition_assigned")) >= 12, "all partitions assigned"
        )
        for topic in (settings.items_topic, settings.users_topic):
            add_partitions(settings, topic, 8)
        item, user = user_of(6, 8), user_of(7, 8)
        with Producer(settings) as producer:
            tokens = [
                producer.publish(
                    settings.items_topic,
                    item.encode(),
                    b'{"item_id":"%s","item_type":"startup"}' % item.encode(),
                ).result(20),
                producer.publish(
                    settings.users_topic,
                    user.encode(),
                    b'{"user_id":"%s","roles":["x"]}' % user.encode(),
                ).result(20),
            ]
        assert [int(token.split(":")[1]) for token in tokens] == [6, 7]
        assert client.get(f"{FOR_DEVELOPER}/{user}?after={tokens[0]}").json()["stale"] is False
        assert client.get(f"/api/users/{user}?after={tokens[1]}").json()["stale"] is False
    assert redis.hexists(keys.ONLY.items, item)
    assert redis.exists(keys.ONLY.profile(user))


def test_a_schedule_counts_the_events_of_added_partitions(
    broker: object, settings: Settings, redis: Redis
) -> None:
    log.ensure_topics(settings)
    add_partitions(settings, settings.interactions_topic, 6)
    redis.hset(keys.ONLY.position(settings.interactions_topic, 5), "position", 7)
    eventually(lambda: schedules.new_events(settings) == 7, "the seven of partition 5 counted")


def test_live_workers_read_added_partitions_of_their_topic(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    log.ensure_topics(settings)
    port = free_port()
    live = spawn("streams", "live", METRICS_PORT=str(port))
    topic = settings.model_updates_topic
    with Producer(settings) as producer:
        producer.raw(topic, b"0", b'[["ann","item-1"]]', partition=0)
        producer.flush()
        eventually(lambda: batches(live, port) >= 1, "the first hint folded in", 60.0)
    add_partitions(settings, topic, 6)
    eventually(
        lambda: partitions.count(settings, topic) == 6, "the broker knows the new partitions"
    )
    with Producer(settings) as producer:
        producer.raw(topic, b"5", b'[["bob","item-1"]]', partition=5)
        producer.flush()
    eventually(
        lambda: batches(live, port) >= 2, "the hint of the new partition folded in", NOTICED_S + 10
    )


def batches(child: Child, port: int) -> float:
    child.check()
    try:
        return metric(port, "eddyline_live_batches_total").get("", 0.0)
    except OSError:
        return 0.0


@pytest.mark.parametrize("beyond", [4, 400])
def test_a_token_of_a_partition_that_does_not_exist_is_refused(
    broker: object, settings: Settings, redis: Redis, beyond: int
) -> None:
    publish(settings)
    with serving(settings, api_after_s=0.2) as client:
        path = f"{FOR_DEVELOPER}/warm?after={settings.interactions_topic}:{beyond}:1"
        assert client.get(path).status_code in (200, 422), (
            "until the number of partitions is known, the answer is stale"
        )
        answer = eventually(
            lambda: (answer := client.get(path)).status_code == 422 and answer,
            "the token is refused",
        )
        assert answer.json()["error"] == "bad_token"
        assert "has 4" in answer.json()["detail"]
