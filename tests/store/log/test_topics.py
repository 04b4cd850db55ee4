"""Topics that exist before Eddyline does are compared with what it needs, and each difference comes
with the command that mends it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic
from redis import Redis

from core.settings import Settings
from store.log import client as log
from store.log.topics import needs
from store.log.topics.needs import Described, differences
from testing.apache import KafkaBroker, kafka_home
from testing.process import Child
from testing.tansu import TansuBroker
from tests.api.world import event, publish, serving
from tests.conftest import Spawn
from tests.support import eventually

TOOLS = {
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-reassign-partitions.sh": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
}
"""The class that each of Kafka's scripts runs."""


def admin(settings: Settings) -> AdminClient:
    return AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})


def create(
    settings: Settings, name: str, partitions: int = 4, config: Mapping[str, str] | None = None
) -> None:
    client = admin(settings)  # held until the answer is there
    for future in client.create_topics(
        [NewTopic(name, partitions, 1, config=dict(config or {}))]
    ).values():
        future.result(20)


def mend(command: str) -> None:
    """Run a command that we printed; the script's class stands in for the script, which an unpacked
    set of jars lacks.
    """
    script, *arguments = shlex.split(command)
    done = subprocess.run(
        ["java", "-Xmx256m", "-cp", f"{kafka_home()}/libs/*", TOOLS[script], *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def shown(spawn: Spawn) -> tuple[int, list[dict[str, str]]]:
    """Exit status and differences of `streams topics --json`."""
    child = spawn("streams", "topics", "--json")
    status = child.wait(60)
    text = child.log.read_text()
    return status, json.loads(text[text.index("{\n") :])["differences"]


def lines(child: Child, name: str) -> list[dict[str, str]]:
    found = [
        json.loads(line) for line in child.log.read_text().splitlines() if line.startswith("{")
    ]
    return [line for line in found if line.get("event") == name]


@pytest.mark.apache
@pytest.mark.timeout(180)
def test_each_difference_goes_by_the_command_that_is_shown_with_it(
    broker: object, settings: Settings, spawn: Spawn
) -> None:
    create(
        settings,
        settings.interactions_topic,
        2,
        {"message.timestamp.type": "CreateTime", "retention.ms": "3600000"},
    )
    create(settings, settings.items_topic, 1, {"cleanup.policy": "delete"})
    create(
        settings,
        settings.users_topic,
        1,
        {"cleanup.policy": "compact,delete", "message.timestamp.type": "LogAppendTime"},
    )
    status, found = shown(spawn)
    assert status == 1
    assert {(row["topic"], row["setting"], row["value"], row["needed"]) for row in found} == {
        (settings.interactions_topic, "partitions", "2", "4"),
        (settings.interactions_topic, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        (settings.interactions_topic, "retention.ms", "3600000", "86400000"),
        (settings.items_topic, "cleanup.policy", "delete", "compact"),
        (settings.items_topic, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        (settings.items_topic, "min.compaction.lag.ms", "0", "86400000"),
        (settings.users_topic, "cleanup.policy", "compact,delete", "compact"),
        (settings.users_topic, "min.compaction.lag.ms", "0", "86400000"),
    }
    assert not any(row["fatal"] for row in found)
    for row in found:
        mend(row["command"])
    assert shown(spawn) == (0, [])


@pytest.mark.apache
@pytest.mark.timeout(120)
@pytest.mark.parametrize("process", ["ingest", "archive"])
def test_who_reads_a_topic_that_loses_events_refuses_to_start(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn, process: str
) -> None:
    create(
        settings,
        settings.interactions_topic,
        config={"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"},
    )
    child = spawn("streams", process)
    assert child.wait(60) == 1
    (error,) = [line for line in child.log.read_text().splitlines() if line.startswith("error: ")]
    assert "the topic " + settings.interactions_topic in error
    assert "all but the latest event of each user are removed" in error
    if process == "ingest":
        mend(error.partition("Run: ")[2])
        child = spawn("streams", process)
        eventually(
            lambda: "partition_assigned" in child.log.read_text(),
            "ingest at work after the command",
        )


@pytest.mark.apache
def test_a_difference_is_logged_once_and_the_process_works(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    config = {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "min.compaction.lag.ms": "86400000",
    }
    create(settings, settings.items_topic, config=config)
    child = spawn("streams", "ingest")
    eventually(lambda: "partition_assigned" in child.log.read_text(), "ingest at work")
    (line,) = lines(child, "topic_differs")
    assert (line["topic"], line["setting"], line["value"]) == (
        settings.items_topic,
        "cleanup.policy",
        "delete",
    )
    assert line["command"].startswith(
        f"kafka-configs.sh --bootstrap-server {settings.kafka_bootstrap_servers} --alter"
    )
    assert "emptied Redis cannot be refilled" in line["consequence"]


@pytest.mark.apache
def test_the_api_serves_whatever_the_topics_are(
    broker: object, settings: Settings, redis: Redis
) -> None:
    create(settings, settings.interactions_topic, config={"cleanup.policy": "compact"})
    publish(settings)
    with serving(settings) as client:
        eventually(
            lambda: client.write("POST", "/api/events", event()).status_code == 202,
            "writes are taken",
        )


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker that checks ACLs."""
    if kafka_home() is None:
        pytest.skip("needs Apache Kafka: KAFKA_HOME and java")
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with KafkaBroker(tmp_path / "guarded", properties=authorizer) as broker:
        yield broker


@pytest.mark.timeout(180)
def test_a_broker_that_may_not_describe_its_topics_costs_one_warning(
    guarded: KafkaBroker, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    theirs = settings.model_copy(update={"kafka_bootstrap_servers": guarded.address})
    rules = [
        (AclOperation.ALL, AclPermissionType.ALLOW),
        (AclOperation.DESCRIBE_CONFIGS, AclPermissionType.DENY),
    ]
    bindings = [
        AclBinding(
            ResourceType.TOPIC,
            "*",
            ResourcePatternType.LITERAL,
            "User:*",
            "*",
            operation,
            permission,
        )
        for operation, permission in rules
    ]
    client = admin(theirs)
    for future in client.create_acls(bindings).values():
        future.result(20)
    child = spawn("streams", "ingest", KAFKA_BOOTSTRAP_SERVERS=guarded.address)
    eventually(lambda: "partition_assigned" in child.log.read_text(), "ingest at work", 60.0)
    (line,) = lines(child, "topic_settings_not_described")
    assert "authorization" in line["error"].lower()
    assert lines(child, "topic_differs") == []


def test_topics_that_we_create_differ_in_nothing(
    broker: KafkaBroker | TansuBroker, settings: Settings, spawn: Spawn
) -> None:
    assert len(log.ensure_topics(settings)) == 7
    assert shown(spawn) == (0, [])


def test_too_few_replicas_are_moved_to_further_brokers(settings: Settings) -> None:
    three = settings.model_copy(update={"topic_replication": 3})
    name = settings.interactions_topic
    described = {name: Described([[1], [2, 3]], None)}
    (few, found) = differences(three, described, [1, 2, 3, 4])
    assert few.setting == "partitions"
    assert (found.setting, found.value, found.needed) == ("replication", "1", "3")
    echo, plan, pipe, script, *rest = shlex.split(found.command)
    assert (echo, pipe, script, rest[-1]) == (
        "echo",
        "|",
        "kafka-reassign-partitions.sh",
        "--execute",
    )
    replicas = [move["replicas"] for move in json.loads(plan)["partitions"]]
    assert replicas == [[1, 2, 3], [2, 3, 4]]
    (_, alone) = differences(three, described, [1, 2])
    assert alone.command.startswith("start 1 more broker")


def test_what_a_broker_does_not_tell_is_no_difference(settings: Settings) -> None:
    assert differences(settings, {}, [1]) == []
    there = {spec.name: Described([[1]] * 4, {}) for spec in needs.specs(settings)}
    assert differences(settings, there, [1]) == []
    unlimited = {
        settings.interactions_topic: Described(
            [[1]] * 8, {"retention.ms": "-1", "cleanup.policy": "delete"}
        )
    }
    assert differences(settings, unlimited, [1]) == [], "more partitions and no limit are as good"
