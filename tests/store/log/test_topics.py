"""Existing topics are compared with what Eddyline needs.

Each difference is printed with the command that corrects it.
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
from store.log.topics.needs import TopicDescription, differences
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
    client = admin(settings)  # closing it would cancel the requests
    for future in client.create_topics(
        [NewTopic(name, partitions, 1, config=dict(config or {}))]
    ).values():
        future.result(20)


def run_command(command: str) -> None:
    """Run a printed command by the class of its script: the script itself may be missing."""
    script, *arguments = shlex.split(command)
    result = subprocess.run(
        ["java", "-Xmx256m", "-cp", f"{kafka_home()}/libs/*", TOOLS[script], *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def topics_command(spawn: Spawn) -> tuple[int, list[dict[str, str]]]:
    """Exit status and differences of `streams topics --json`."""
    child = spawn("streams", "topics", "--json")
    status = child.wait(60)
    text = child.log.read_text()
    return status, json.loads(text[text.index("{\n") :])["differences"]


def lines(child: Child, name: str) -> list[dict[str, str]]:
    """The log lines of one event."""
    entries = [
        json.loads(line) for line in child.log.read_text().splitlines() if line.startswith("{")
    ]
    return [entry for entry in entries if entry.get("event") == name]


@pytest.mark.apache
@pytest.mark.timeout(360)
def test_each_difference_is_corrected_by_the_command_that_is_printed_with_it(
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
    status, differing = topics_command(spawn)
    assert status == 1
    assert {(row["topic"], row["setting"], row["value"], row["needed"]) for row in differing} == {
        (settings.interactions_topic, "partitions", "2", "4"),
        (settings.interactions_topic, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        (settings.interactions_topic, "retention.ms", "3600000", "86400000"),
        (settings.items_topic, "cleanup.policy", "delete", "compact"),
        (settings.items_topic, "message.timestamp.type", "CreateTime", "LogAppendTime"),
        (settings.items_topic, "min.compaction.lag.ms", "0", "86400000"),
        (settings.users_topic, "cleanup.policy", "compact,delete", "compact"),
        (settings.users_topic, "min.compaction.lag.ms", "0", "86400000"),
    }
    assert not any(row["fatal"] for row in differing)
    for row in differing:
        run_command(row["command"])
    assert topics_command(spawn) == (0, [])


@pytest.mark.apache
@pytest.mark.timeout(240)
@pytest.mark.parametrize("process", ["ingest", "archive"])
def test_a_process_that_reads_a_topic_that_loses_events_refuses_to_start(
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
        run_command(error.partition("Run: ")[2])
        child = spawn("streams", process)
        eventually(
            lambda: "partition_assigned" in child.log.read_text(),
            "ingest at work after the command",
        )


@pytest.mark.apache
def test_a_difference_that_loses_no_events_is_logged_once(
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
def test_the_api_starts_whatever_the_topics_are(
    broker: object, settings: Settings, redis: Redis
) -> None:
    create(settings, settings.interactions_topic, config={"cleanup.policy": "compact"})
    publish(settings)
    with serving(settings) as client:
        eventually(
            lambda: client.write("POST", "/api/events", event()).status_code == 202,
            "writes are accepted",
        )


@pytest.fixture
def broker_with_acls(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker that checks ACLs."""
    if kafka_home() is None:
        pytest.skip("needs Apache Kafka: KAFKA_HOME and java")
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with KafkaBroker(tmp_path / "guarded", properties=authorizer) as broker:
        yield broker


@pytest.mark.timeout(360)
def test_a_missing_permission_to_describe_topics_costs_one_warning(
    broker_with_acls: KafkaBroker, settings: Settings, redis: Redis, spawn: Spawn
) -> None:
    restricted = settings.model_copy(update={"kafka_bootstrap_servers": broker_with_acls.address})
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
    client = admin(restricted)
    for future in client.create_acls(bindings).values():
        future.result(20)
    child = spawn("streams", "ingest", KAFKA_BOOTSTRAP_SERVERS=broker_with_acls.address)
    eventually(lambda: "partition_assigned" in child.log.read_text(), "ingest at work", 60.0)
    (line,) = lines(child, "topic_settings_not_described")
    assert "authorization" in line["error"].lower()
    assert lines(child, "topic_differs") == []


def test_topics_that_eddyline_creates_have_no_difference(
    broker: KafkaBroker | TansuBroker, settings: Settings, spawn: Spawn
) -> None:
    assert len(log.ensure_topics(settings)) == 7
    assert topics_command(spawn) == (0, [])


def test_the_command_for_too_few_replicas_adds_other_brokers(settings: Settings) -> None:
    three = settings.model_copy(update={"topic_replication": 3})
    name = settings.interactions_topic
    described = {name: TopicDescription([[1], [2, 3]], None)}
    (partitions, replicas) = differences(three, described, [1, 2, 3, 4])
    assert partitions.setting == "partitions"
    assert (replicas.setting, replicas.value, replicas.needed) == ("replication", "1", "3")
    echo, plan, pipe, script, *rest = shlex.split(replicas.command)
    assert (echo, pipe, script, rest[-1]) == (
        "echo",
        "|",
        "kafka-reassign-partitions.sh",
        "--execute",
    )
    moves = [move["replicas"] for move in json.loads(plan)["partitions"]]
    assert moves == [[1, 2, 3], [2, 3, 4]]
    (_, too_few_brokers) = differences(three, described, [1, 2])
    assert too_few_brokers.command.startswith("start 1 more broker")


def test_a_setting_that_the_broker_does_not_report_is_no_difference(settings: Settings) -> None:
    assert differences(settings, {}, [1]) == []
    existing = {spec.name: TopicDescription([[1]] * 4, {}) for spec in needs.specs(settings)}
    assert differences(settings, existing, [1]) == []
    unlimited = {
        settings.interactions_topic: TopicDescription(
            [[1]] * 8, {"retention.ms": "-1", "cleanup.policy": "delete"}
        )
    }
    assert differences(settings, unlimited, [1]) == [], (
        "more partitions and unlimited retention fit"
    )
