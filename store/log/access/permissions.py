"""Checks at the start of a process that its user has the permissions that the process needs.

Without this check a missing one would show when the process first needs it, which for the
dead-letter topic may be weeks later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

from core.errors import LogRefused
from core.settings import Settings
from store.log import client as log

_log = structlog.get_logger(__name__)

COMMAND_S = 4.0
"""Seconds that a command waits for a broker."""
_GROUP_S = 0.2
"""Seconds between two looks whether the broker refuses a group."""
_NO_PARTITION = 2**31 - 1
_REFUSED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


class Permissions(NamedTuple):
    """What one kind of process does with topics and its consumer group. Each implies Describe."""

    process: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    group: str | None = None

    @property
    def topics(self) -> dict[str, set[AclOperation]]:
        """Operations by topic."""
        operations: dict[str, set[AclOperation]] = {}
        for names, operation in (
            (self.reads, AclOperation.READ),
            (self.writes, AclOperation.WRITE),
        ):
            for name in names:
                operations.setdefault(name, set()).add(operation)
        return operations


Needs = Callable[[Settings], Permissions]
"""What a process needs, with the names of topics and groups from the settings."""


def of_ingest(settings: Settings) -> Permissions:
    """It also writes the records of deletions, so that a lost Redis learns them again."""
    events = (settings.interactions_topic, settings.items_topic, settings.users_topic)
    return Permissions(
        "ingest",
        (*events, settings.deletions_topic),
        (settings.deletions_topic, settings.dlq_topic, settings.model_updates_topic),
        settings.ingest_group,
    )


def of_live(settings: Settings) -> Permissions:
    """Faust elects the leader of the group with a topic of its own."""
    return Permissions(
        "live",
        (settings.model_updates_topic, f"{settings.live_group}-__assignor-__leader"),
        (settings.dlq_topic, settings.retrain_requests_topic),
        settings.live_group,
    )


def of_archive(settings: Settings) -> Permissions:
    """It reads events only."""
    return Permissions("archive", (settings.interactions_topic,), (), settings.archive_group)


def of_trainer(settings: Settings) -> Permissions:
    """It reads events from the archive, not from Kafka."""
    return Permissions(
        "training worker",
        (settings.retrain_requests_topic,),
        (settings.dlq_topic,),
        settings.trainer_group,
    )


def of_rebuild(settings: Settings) -> Permissions:
    """As ingest, but without a group and hints."""
    ingest = of_ingest(settings)
    return Permissions("rebuild", ingest.reads, (settings.deletions_topic, settings.dlq_topic))


def of_positions(settings: Settings) -> Permissions:
    """`inspect positions` reads the ends of the log."""
    topics = (settings.interactions_topic, settings.items_topic, settings.users_topic)
    return Permissions("command", topics, ())


def of_api(settings: Settings) -> Permissions:
    """It sends what its callers write."""
    events = (settings.interactions_topic, settings.items_topic, settings.users_topic)
    return Permissions("API", (), (*events, settings.retrain_requests_topic))


def prepare_to_send(settings: Settings, command: str, *topics: str) -> None:
    """Create the topics of a command that sends to them, and check its permissions.

    Somebody waits for the command: without a broker it fails after COMMAND_S, unless
    KAFKA_TIMEOUT_S is set. Raises LogUnavailable, LogRefused.
    """
    waits = (
        settings.kafka_timeout_s if "kafka_timeout_s" in settings.model_fields_set else COMMAND_S
    )
    log.reach(settings, waits)
    check(settings, Permissions(command, (), topics))
    log.ensure_topics(settings, topics)


def prepare(settings: Settings, needs: Needs) -> None:
    """Reach the broker and check permissions. Raises LogUnavailable, LogRefused."""
    log.reach(settings)
    check(settings, needs(settings))


def check(settings: Settings, permissions: Permissions) -> None:
    """Raise LogRefused that names every missing permission; LogUnavailable without a broker.

    A broker that does not say what a user may do is not checked.
    """
    client = log.admin(settings)
    try:
        missing = [
            *_of_topics(client, settings, permissions),
            *_of_group(settings, permissions),
        ]
    except KafkaException as error:
        raise log.unreachable(settings, "checking permissions", error) from error
    if missing:
        raise LogRefused(
            f"the user that this process logs in as at Kafka at "
            f"{settings.kafka_bootstrap_servers} may not {', may not '.join(missing)}; the "
            f"{permissions.process} needs that: add the ACLs with kafka-acls.sh "
            "(docs/security.md lists those of each process)"
        )


def _of_topics(client: AdminClient, settings: Settings, permissions: Permissions) -> Iterator[str]:
    operations = permissions.topics
    answers = client.describe_topics(
        TopicCollection(sorted(operations)),
        include_authorized_operations=True,
        request_timeout=settings.kafka_timeout_s,
    )
    for topic, needed in operations.items():
        allowed = _allowed(answers[topic])
        for operation in sorted(needed - allowed if allowed is not None else (), key=str):
            yield f"{operation.name.capitalize()} the topic {topic}"


def _of_group(settings: Settings, permissions: Permissions) -> Iterator[str]:
    """Asks as a member of the group would, not by an admin client: such a request ends the process
    by an assertion when its connection is lost meanwhile (librdkafka's issue 4605).
    """
    group = permissions.group
    if group is None:
        return
    with log.refused_properties():
        consumer = Consumer(log.consumer_config(settings, group))
    try:
        error = _group_error(consumer, permissions.reads[0], settings.kafka_timeout_s)
        if error.code() in _REFUSED:
            yield f"Read the consumer group {group}"
        elif error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.NO_ERROR):
            _log.debug("permissions_unknown", error=error.str())
    finally:
        consumer.close()


def _group_error(consumer: Consumer, topic: str, timeout_s: float) -> KafkaError:
    """The broker's answer to the commit of an offset in a partition that does not exist.

    Kafka compares the permission of the group first, and writes nothing; the embedded broker has no
    permissions, and accepts it. The client asks for the coordinator until it has one, and reports a
    refusal of that to the poll alone.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            consumer.committed([TopicPartition(topic, 0)], _GROUP_S)
            break
        except KafkaException as raised:
            message = consumer.poll(0.0)
            refusal = message.error() if message is not None else None
            if refusal is not None and refusal.code() in _REFUSED:
                return refusal
            if raised.args[0].code() != KafkaError._TIMED_OUT or time.monotonic() > deadline:
                unanswered: KafkaError = raised.args[0]
                return unanswered
    try:
        answers = consumer.commit(
            offsets=[TopicPartition(topic, _NO_PARTITION, 0)], asynchronous=False
        )
    except KafkaException as raised:
        answer: KafkaError = raised.args[0]
    else:
        answer = answers[0].error or KafkaError(KafkaError.NO_ERROR)
    return answer


def _allowed(answer: Any) -> set[AclOperation] | None:
    """The operations in an answer; None where the broker does not say."""
    try:
        operations = answer.result().authorized_operations
    except KafkaException as error:
        if error.args[0].code() in _REFUSED:
            return set()
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:  # it is created next
            _log.debug("permissions_unknown", error=error.args[0].str())
        return None
    return set(operations) if operations else None
