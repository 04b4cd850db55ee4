"""What Eddyline needs of each of its topics, and how a topic that exists already is compared with
that. Pure: asks no broker.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from core.settings import Settings

DAY_MS = 24 * 3600 * 1000
"""Least retention of `interactions`, and least age at which `items` and `users` are compacted, in
milliseconds: an archive or ingest that is down for a day loses nothing.
"""
HOUR_MS = 3600 * 1000
"""Least retention of the hints, in milliseconds: older ones are folded in by readers."""
UNLIMITED = "-1"
"""Kafka's word for no limit of retention.ms and retention.bytes."""


class Need(NamedTuple):
    """One setting of a topic: `value` is what the mending command sets, `fits` accepts what is as
    good.

    `fatal`: a process that reads the topic refuses to start, because data is lost for good while
    the setting stands.
    """

    setting: str
    value: str
    fits: Callable[[str], bool]
    consequence: str
    fatal: bool = False


class Spec(NamedTuple):
    """A topic of ours: the settings that it is created with, and what an existing one is compared
    with.
    """

    name: str
    config: Mapping[str, str]
    needs: tuple[Need, ...]
    scales: bool
    """Whether its number of partitions decides how many processes share the work."""


class Described(NamedTuple):
    """A topic as the broker describes it.

    `replicas`: brokers of each partition. `config`: None where the broker does not describe it.
    """

    replicas: Sequence[Sequence[int]]
    config: Mapping[str, str] | None


class Difference(msgspec.Struct, frozen=True):
    """One setting of one topic that is not as needed, what follows from it, and the command that
    mends it.
    """

    topic: str
    setting: str
    value: str
    needed: str
    fatal: bool
    consequence: str
    command: str


def specs(settings: Settings) -> list[Spec]:
    """Every topic of ours."""
    broker_time = _exactly(
        "message.timestamp.type",
        "LogAppendTime",
        (
            "deletions, late events and lag are judged by the producers' clocks instead of the "
            "broker's"
        ),
    )
    kept = _exactly(
        "cleanup.policy",
        "compact",
        "entries older than the retention vanish, and an emptied Redis cannot be refilled",
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
    compact, append_time = (
        {"cleanup.policy": "compact"},
        {"message.timestamp.type": "LogAppendTime"},
    )
    lagging = {"min.compaction.lag.ms": str(DAY_MS)}
    return [
        Spec(
            settings.interactions_topic,
            append_time,
            (every_event, broker_time, retained),
            scales=True,
        ),
        Spec(settings.dlq_topic, {}, (letters,), scales=False),
        Spec(
            settings.items_topic,
            compact | append_time | lagging,
            (kept, broker_time, unread),
            scales=False,
        ),
        Spec(
            settings.users_topic,
            compact | append_time | lagging,
            (kept, broker_time, unread),
            scales=False,
        ),
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
    settings: Settings, described: Mapping[str, Described], brokers: Sequence[int]
) -> list[Difference]:
    """Compare topics with their specs; topics that are not in `described`, and settings that a
    broker does not report, are skipped.

    `brokers`: ids of the brokers that there are.
    """
    found: list[Difference] = []
    for spec in specs(settings):
        topic = described.get(spec.name)
        if topic is None:
            continue
        found.extend(_partitions(settings, spec, topic))
        found.extend(_replication(settings, spec, topic, brokers))
        for need in spec.needs:
            value = (topic.config or {}).get(need.setting)
            if value is not None and not need.fits(value):
                command = _tool(
                    settings,
                    "configs",
                    "--alter",
                    "--entity-type",
                    "topics",
                    "--entity-name",
                    spec.name,
                )
                command += f" --add-config {need.setting}={need.value}"
                found.append(
                    Difference(
                        spec.name,
                        need.setting,
                        value,
                        need.value,
                        need.fatal,
                        need.consequence,
                        command,
                    )
                )
    return found


def _partitions(settings: Settings, spec: Spec, topic: Described) -> list[Difference]:
    """Fewer than TOPIC_PARTITIONS; more are as good, and a topic that does not share work needs
    one.
    """
    count, needed = len(topic.replicas), settings.topic_partitions
    if not spec.scales or count >= needed:
        return []
    consequence = (
        f"at most {count} processes share the work; adding partitions moves users between "
        f"partitions (docs/operations.md), "
        f"TOPIC_PARTITIONS={count} accepts what is there"
    )
    command = _tool(
        settings, "topics", "--alter", "--topic", spec.name, "--partitions", str(needed)
    )
    return [
        Difference(spec.name, "partitions", str(count), str(needed), False, consequence, command)
    ]


def _replication(
    settings: Settings, spec: Spec, topic: Described, brokers: Sequence[int]
) -> list[Difference]:
    """Fewer replicas than TOPIC_REPLICATION."""
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
    """`replicas` and further brokers, other ones for each partition `number`."""
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
