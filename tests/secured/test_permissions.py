"""Every process names the login, certificate or permission that it lacks, and needs no other ACL
than docs/security.md lists.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from pydantic import SecretStr
from redis import Redis

from core.errors import LogRefused
from core.settings import Settings
from store.log import client as log
from store.log.access import permissions
from store.log.access.permissions import Needs, Permissions
from store.log.producer import Producer
from testing.certificates import Certificates
from testing.process import ROOT, Child
from testing.secured.kafka import LIMITED, SecuredKafka
from tests import oracle
from tests.exactly_once.conftest import caught_up
from tests.exactly_once.traffic import Traffic
from tests.secured.conftest import Login, Start
from tests.secured.test_kafka_login import assert_refused, members
from tests.secured.test_matrix import address
from tests.support import eventually

CHECKED: dict[str, Needs] = {
    "ingest": permissions.of_ingest,
    "live": permissions.of_live,
    "archive": permissions.of_archive,
    "training worker": permissions.of_trainer,
    "rebuild": permissions.of_rebuild,
    "API": permissions.of_api,
}
"""Processes that check their permissions at their start."""
ONCE = ("archive", "produce", "import", "simulate", "inspect positions", "dlq list")
"""Processes that end by themselves."""
KEY = "a-key-of-this-test"
KEYS = frozenset({SecretStr(KEY)})
EVENT = ("user_id=1", "item_id=2", "event_type=like")


@pytest.fixture
def acls(login: Login) -> Iterator[Any]:
    """`acls(Permissions(...))` allows a user this; the ACLs go with the test."""
    client = log.admin(login("scram"))
    users = set()

    def allow(needed: Permissions, user: str = LIMITED) -> None:
        users.add(user)
        operations = [
            (ResourceType.TOPIC, topic, operation)
            for topic, allowed in needed.topics.items()
            for operation in [*allowed, *([AclOperation.CREATE] if "__leader" in topic else [])]
        ]
        if needed.group is not None:
            operations.append((ResourceType.GROUP, needed.group, AclOperation.READ))
        bindings = [
            AclBinding(
                kind,
                name,
                ResourcePatternType.LITERAL,
                f"User:{user}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for kind, name, operation in operations
        ]
        for future in client.create_acls(bindings).values():
            future.result(30)

    yield allow
    for user in users:
        everything = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{user}",
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for future in client.delete_acls([everything]).values():
            future.result(30)


def commands(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    """Every process that uses Kafka, except the API."""
    rows = tmp_path / "rows.csv"
    rows.write_text("user_id,item_id,event_type,timestamp\n1,2,like,1700000000\n")
    return {
        "ingest": ("streams", "ingest"),
        "live": ("streams", "live"),
        "archive": ("streams", "archive", "--until-idle"),
        "training worker": ("training", "worker"),
        "rebuild": ("streams", "rebuild", "--from-log", "--yes"),
        "produce": ("streams", "produce", *EVENT),
        "import": ("streams", "import", str(rows), "--rejects", str(tmp_path / "rejects")),
        "simulate": ("streams", "simulate", "--events", "10"),
        "inspect positions": ("streams", "inspect", "positions"),
        "dlq list": ("streams", "dlq", "list"),
        "topics": ("streams", "topics"),
    }


@pytest.mark.timeout(480)
@pytest.mark.parametrize("refusal", ["password", "certificate", "permission"])
def test_every_process_ends_with_one_line_that_names_the_refusal(
    refusal: str,
    login: Login,
    redis: Redis,
    certificates: Certificates,
    start: Start,
    tmp_path: Path,
) -> None:
    log.ensure_topics(login("scram"))
    change, word = {
        "password": ({"kafka_sasl_password": SecretStr("wr#ng/secret")}, "KAFKA_SASL_PASSWORD"),
        "certificate": ({"kafka_ssl_ca": certificates.other_ca}, "KAFKA_SSL_CA"),
        "permission": ({"kafka_sasl_username": LIMITED}, "ACL"),
    }[refusal]
    # a process that waited for Kafka instead would still run when this test ends; beside eleven
    # others that start, a broker may need more than the 4 s that a command waits for it, and a
    # refusal ends that wait
    settings = login("sasl-ssl", **change, start_timeout_s=600, kafka_timeout_s=240)
    children = [start(settings, *command) for command in commands(tmp_path).values()]
    api = start(settings, "api")
    for child in children:
        assert_refused(child, word)
    with httpx.Client(base_url=address(api), timeout=10) as http:
        eventually(
            lambda: word in http.get("/health/ready").text, "the API names it", 30, every=0.5
        )
    assert "wr#ng" not in api.log.read_text()


@pytest.mark.parametrize("needs", CHECKED.values(), ids=CHECKED)
def test_each_missing_permission_is_named(needs: Needs, login: Login, acls: Any) -> None:
    log.ensure_topics(login("scram"))
    # what a broker does not say in time is not checked
    settings = login("scram", kafka_sasl_username=LIMITED, kafka_timeout_s=60)
    needed = needs(settings)
    named = [
        *(f"may not Read the topic {topic}" for topic in needed.reads),
        *(f"may not Write the topic {topic}" for topic in needed.writes),
        *([f"may not Read the consumer group {needed.group}"] if needed.group else []),
    ]
    with pytest.raises(LogRefused) as refused:
        permissions.check(settings, needed)
    assert all(text in str(refused.value) for text in named), refused.value
    lacking = needed.writes[0] if needed.writes else needed.reads[0]
    acls(
        needed._replace(
            reads=tuple(topic for topic in needed.reads if topic != lacking),
            writes=tuple(topic for topic in needed.writes if topic != lacking),
        )
    )

    def only_one() -> bool:
        with pytest.raises(LogRefused, match=lacking) as refused:
            permissions.check(settings, needed)
        return str(refused.value).count("may not") <= 2  # Read and Write of the one topic

    eventually(only_one, "only that topic is named")


def test_a_group_that_may_be_described_and_not_joined_is_named(login: Login, acls: Any) -> None:
    log.ensure_topics(login("scram"))
    settings = login("scram", kafka_sasl_username=LIMITED, kafka_timeout_s=60)
    needed = permissions.of_ingest(settings)
    acls(needed._replace(group=None))
    group = ResourceType.GROUP, settings.ingest_group, ResourcePatternType.LITERAL
    may = f"User:{LIMITED}", "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW
    client = log.admin(login("scram"))  # without a reference it would end before the answer
    for future in client.create_acls([AclBinding(*group, *may)]).values():
        future.result(30)
    member = Consumer(log.consumer_config(settings, settings.ingest_group))
    numbers = 0, 2**31 - 1

    def positions() -> list[int]:
        try:
            places = [TopicPartition(settings.interactions_topic, number) for number in numbers]
            return [place.offset for place in member.committed(places, 1)]
        except KafkaException:
            return []

    eventually(positions, "the broker has the ACL")
    with pytest.raises(LogRefused, match="may not Read the consumer group"):
        permissions.check(settings, needed)
    assert max(positions()) < 0, "the check has committed nothing"
    member.close()


def _documented() -> dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]:
    """Process -> topics to read, topics to write, and groups, by docs/security.md."""
    page = (ROOT / "docs" / "security.md").read_text()
    section = page.partition("### The ACLs of each process")[2].partition("\n#")[0]
    names = re.compile(r"`([^`]+)`")
    rows = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 4 and cells[0] not in ("process", "---"):
            reads, writes, groups = (tuple(names.findall(cell)) for cell in cells[1:])
            rows[cells[0].strip("`")] = (reads, writes, groups)
    return rows


@pytest.mark.parametrize("process", CHECKED)
def test_the_page_lists_what_a_process_checks(process: str) -> None:
    needed = CHECKED[process](Settings(_env_file=None))  # type: ignore[call-arg]
    groups = (needed.group,) if needed.group else ()
    assert _documented()[process] == (needed.reads, needed.writes, groups)


@pytest.mark.timeout(480)
def test_the_listed_acls_suffice(
    secured_kafka: SecuredKafka,
    login: Login,
    redis: Redis,
    acls: Any,
    start: Start,
    tmp_path: Path,
) -> None:
    settings = login("scram")
    log.ensure_topics(settings)
    with Producer(settings) as producer:
        Traffic(settings, seed=5).burst(producer, 300)
    topics = _names_here(settings)
    runs = commands(tmp_path) | {"API": ("api",)}

    def run(process: str) -> Child:
        user = f"limited-{process.replace(' ', '-')}"
        secured_kafka.add_user(user)
        reads, writes, groups = (
            tuple(topics[name] for name in names) for names in _documented()[process]
        )
        acls(Permissions(process, reads, writes, groups[0] if groups else None), user)
        mine = settings.model_copy(update={"kafka_sasl_username": user})
        return start(mine.model_copy(update={"api_keys": KEYS}), *runs[process])

    rebuild = run("rebuild")
    assert rebuild.wait(90) == 0, rebuild.describe("failed")
    ends = [process for process in _documented() if process in ONCE]
    ended = [run(process) for process in ends]
    ingest, live, trainer, api = map(run, ("ingest", "live", "training worker", "API"))
    for child in ended:
        assert child.wait(90) == 0, child.describe("failed")
    eventually(lambda: members(settings, live), "the live worker is a member of its group", 60)
    eventually(lambda: "waiting_for_requests" in trainer.log.read_text(), "the trainer waits", 60)
    with httpx.Client(base_url=address(api), timeout=10) as http:
        event = dict(field.split("=") for field in EVENT) | {
            "event_id": "1",
            "timestamp": time.time(),
        }
        eventually(
            lambda: http.post("/api/events", json=event, headers={"X-API-Key": KEY}).is_success,
            "the API sends an event",
            60,
        )
    caught_up(redis, settings, ingest)
    checked = oracle.assert_equal(redis, settings)
    assert oracle.dead_letter_differences(settings, checked) == []
    for child in (live, trainer, api):
        child.check()


def _names_here(settings: Settings) -> dict[str, str]:
    """The name of a topic or group by default -> the name in this test."""
    default = Settings(_env_file=None)  # type: ignore[call-arg]
    fields = [name for name in Settings.model_fields if name.endswith(("_topic", "_group"))]
    names = {
        getattr(default, name): getattr(settings, name)
        for name in (*fields, "dlq_topic", "deletions_topic")
    }
    leader = "-__assignor-__leader"
    return names | {default.live_group + leader: settings.live_group + leader}
