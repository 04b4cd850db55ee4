"""Says what Eddyline needs of each of its topics, and compares an existing topic with that.

Pure: speaks to no broker.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from core.settings import Settings

DAY_MS = 24 * 3600 * 1000
"""Minimum retention of `interactions` and minimum compaction lag of `items` and `users`, in
milliseconds: an archive or ingest that is down for a day loses nothing.
"""
HOUR_MS = 3600 * 1000
"""Minimum retention of hints, in milliseconds: readers fold in what older ones name."""
UNLIMITED = "-1"
"""Kafka's value of retention.ms and retention.bytes for no limit."""


class Need(NamedTuple):
    """One setting of a topic: the correcting command sets `value`, `fits` accepts other values too.

    `fatal`: a process that reads the topic refuses to start, because data is lost permanently with
    another value.
    """

    setting: str
    value: str
    fits: Callable[[str], bool]
    consequence: str
    fatal: bool = False


class Spec(NamedTuple):
    """A topic: the settings with which it is created, and what an existing one needs."""

    name: str
    config: Mapping[str, str]
    needs: tuple[Need, ...]
    scales: bool
    """Whether its number of partitions decides how many processes share the work."""


class TopicDescription(NamedTuple):
    """A topic as the broker describes it.

    `replicas`: the brokers of each partition. `config`: None where the broker does not describe it.
    """

    replicas: Sequence[Sequence[int]]
    config: Mapping[str, str] | None


class Difference(msgspec.Struct, frozen=True):
    """One setting of one topic that is not as needed.

    It names the consequence and the command that corrects the setting.
    """

    topic: str
    setting: str
    value: str
    needed: str
    fatal: bool
    consequence: str
    command: str


def specs(settings: Settings) -> list[Spec]:
    """Every topic of Eddyline."""
    broker_time = _exactly(
        "message.timestamp.type",
        "LogAppendTime",
        "deletions, late events and lag are judged by the producers' clocks instead of the "
        "broker's",
    )
    compacted = _exactly(
        "cleanup.policy",
        "compact",
        "entries older than the retention are deleted, and an emptied Redis cannot be refilled",
    )
    retained = _at_least(
        "retention.ms",
        DAY_MS,
        "an archive or ingest that is down for longer than this loses events",
    )
    every_event = _never_compact(
        "all but the latest event of each user are removed from the log before they may be counted",
        fatal=True,
    )
    letters = _never_compact("dead letters of the same user replace each other")
    deletions = _exactly(
        "cleanup.policy",
        "compact",
        "deletions are forgotten after the retention, and a rebuild brings deleted users back",
        fatal=True,
    )
    hints = (
        _never_compact("hints replace each other, and readers fold in instead"),
        _at_least("retention.ms", HOUR_MS, "hints are lost"),
    )
    unread = _at_least(
        "min.compaction.lag.ms",
        DAY_MS,
        "a deletion may be compacted away before an ingest that is down for a while has read it",
    )
    compact = {"cleanup.policy": "compact"}
    append_time = {"message.timestamp.type": "LogAppendTime"}
    entries = compact | append_time | {"min.compaction.lag.ms": str(DAY_MS)}
    entry_needs = (compacted, broker_time, unread)
    return [
        Spec(
            settings.interactions_topic,
            append_time,
            (every_event, broker_time, retained),
            scales=True,
        ),
        Spec(settings.dlq_topic, {}, (letters,), scales=False),
        Spec(settings.items_topic, entries, entry_needs, scales=False),
        Spec(settings.users_topic, entries, entry_needs, scales=False),
        Spec(settings.deletions_topic, compact, (deletions,), scales=False),
        Spec(settings.model_updates_topic, {"retention.ms": str(DAY_MS)}, hints, scales=True),
        Spec(
            settings.retrain_requests_topic,
            {},
            (_never_compact("requests for a retrain replace each other"),),
            scales=False,
        ),
    ]


def differences(
    settings: Settings, described: Mapping[str, TopicDescription], brokers: Sequence[int]
) -> list[Difference]:
    """Compare topics with their specs.

    Skips topics that are not in `described`, and settings that the broker does not report.
    `brokers`: the ids of all brokers.
    """
    result: list[Difference] = []
    for spec in specs(settings):
        topic = described.get(spec.name)
        if topic is None:
            continue
        result += _partition_count(settings, spec, topic)
        result += _shards(settings, spec, topic)
        result += _replication(settings, spec, topic, brokers)
        result += _config(settings, spec, topic)
    return result


def _config(settings: Settings, spec: Spec, topic: TopicDescription) -> list[Difference]:
    """The settings that do not fit."""
    config = topic.config or {}
    command = _tool(
        settings, "configs", "--alter", "--entity-type", "topics", "--entity-name", spec.name
    )
    return [
        Difference(
            topic=spec.name,
            setting=need.setting,
            value=config[need.setting],
            needed=need.value,
            fatal=need.fatal,
            consequence=need.consequence,
            command=f"{command} --add-config {need.setting}={need.value}",
        )
        for need in spec.needs
        if need.setting in config and not need.fits(config[need.setting])
    ]


def _partition_count(settings: Settings, spec: Spec, topic: TopicDescription) -> list[Difference]:
    """Fewer partitions than TOPIC_PARTITIONS, in a topic whose work processes share."""
    count, needed = len(topic.replicas), settings.topic_partitions
    if not spec.scales or count >= needed:
        return []
    consequence = (
        f"at most {count} processes share the work; adding partitions moves users between "
        f"partitions (docs/operations.md), TOPIC_PARTITIONS={count} accepts this number"
    )
    command = _tool(
        settings, "topics", "--alter", "--topic", spec.name, "--partitions", str(needed)
    )
    return [
        Difference(spec.name, "partitions", str(count), str(needed), False, consequence, command)
    ]


def _shards(settings: Settings, spec: Spec, topic: TopicDescription) -> list[Difference]:
    """A number of partitions that is no multiple of REDIS_SHARDS, in a topic of users."""
    count, shards = len(topic.replicas), settings.redis_shards
    if spec.name not in (settings.interactions_topic, settings.users_topic) or count % shards == 0:
        return []
    needed = str(-(-count // shards) * shards)
    consequence = (
        f"a partition has users of several of the {shards} shards (REDIS_SHARDS), and the records "
        f"of most of them become dead letters"
    )
    command = _tool(settings, "topics", "--alter", "--topic", spec.name, "--partitions", needed)
    return [Difference(spec.name, "partitions", str(count), needed, True, consequence, command)]


def _replication(
    settings: Settings, spec: Spec, topic: TopicDescription, brokers: Sequence[int]
) -> list[Difference]:
    """Fewer replicas of a partition than TOPIC_REPLICATION."""
    fewest, needed = min(map(len, topic.replicas), default=0), settings.topic_replication
    if not topic.replicas or fewest >= needed:
        return []
    if len(brokers) < needed:
        command = (
            f"start {needed - len(brokers)} more brokers, then run `python -m streams topics` again"
        )
    else:
        moves = [
            {
                "topic": spec.name,
                "partition": number,
                "replicas": _enough(replicas, sorted(brokers), needed, number),
            }
            for number, replicas in enumerate(topic.replicas)
        ]
        plan = msgspec.json.encode({"version": 1, "partitions": moves}).decode()
        tool = _tool(
            settings, "reassign-partitions", "--reassignment-json-file", "/dev/stdin", "--execute"
        )
        command = f"echo {shlex.quote(plan)} | {tool}"
    consequence = f"{fewest} broker(s) hold each event; with all of them its events are lost"
    return [
        Difference(spec.name, "replication", str(fewest), str(needed), False, consequence, command)
    ]


def _enough(replicas: Sequence[int], brokers: Sequence[int], needed: int, number: int) -> list[int]:
    """`replicas` and `needed` brokers in all; they differ from partition to partition."""
    others = [broker for broker in brokers if broker not in replicas]
    start = number % max(1, len(others))
    return [*replicas, *others[start:], *others[:start]][:needed]


def _tool(settings: Settings, name: str, *arguments: str) -> str:
    """A command line of Kafka's own tools."""
    return shlex.join(
        [f"kafka-{name}.sh", "--bootstrap-server", settings.kafka_bootstrap_servers, *arguments]
    )


def _exactly(setting: str, value: str, consequence: str, fatal: bool = False) -> Need:
    return Need(setting, value, lambda actual: actual == value, consequence, fatal)


def _never_compact(consequence: str, fatal: bool = False) -> Need:
    return Need(
        "cleanup.policy", "delete", lambda actual: "compact" not in actual, consequence, fatal
    )


def _at_least(setting: str, value: int, consequence: str) -> Need:
    return Need(
        setting, str(value), lambda actual: actual == UNLIMITED or int(actual) >= value, consequence
    )
