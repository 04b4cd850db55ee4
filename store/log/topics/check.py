"""Creates the topics that are missing, and compares the others with what Eddyline needs."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from core.errors import LogMisconfigured
from core.settings import Settings
from store.log import client as log
from store.log.access import permissions
from store.log.access.permissions import Needs
from store.log.topics.needs import Difference, TopicDescription, differences, specs

_log = structlog.get_logger(__name__)

_REACH_S = 1.0
"""Seconds to wait for the first answer of a broker; each of the calls that follow would wait for
KAFKA_TIMEOUT_S.
"""


class TopicCheck:
    """Prepares the topics for one process; logs each difference once."""

    def __init__(self, settings: Settings, needs: Needs) -> None:
        """`needs`: the permissions that the process needs."""
        self._settings, self._permissions = settings, needs(settings)
        self._logged: set[tuple[str, str]] = set()

    def prepare(self, refuse: bool = True) -> None:
        """Create missing topics, check permissions and log differences. Raises LogUnavailable.

        `refuse`: raise LogMisconfigured for a fatal difference, in processes that read events;
        otherwise it is only logged, as an error.
        """
        log.reach(self._settings, _REACH_S)
        permissions.check(self._settings, self._permissions)
        log.ensure_topics(self._settings, self._permissions.topics)
        differing = compare(self._settings)
        for difference in differing:
            if (key := (difference.topic, difference.setting)) not in self._logged:
                self._logged.add(key)
                level = _log.error if difference.fatal else _log.warning
                level(
                    "topic_differs",
                    topic=difference.topic,
                    setting=difference.setting,
                    value=difference.value,
                    needed=difference.needed,
                    consequence=difference.consequence,
                    command=difference.command,
                )
        for difference in differing:
            if difference.fatal and refuse:
                raise LogMisconfigured(
                    f"the topic {difference.topic} has "
                    f"{difference.setting}={difference.value}, not {difference.needed}: "
                    f"{difference.consequence}. Run: {difference.command}"
                )


def compare(settings: Settings) -> list[Difference]:
    """The differences of the existing topics from what is needed. Raises LogUnavailable.

    If a broker does not describe topic settings (it is too old, or an ACL denies it), they are not
    compared, and one warning says so.
    """
    client = log.admin(settings)
    names = [spec.name for spec in specs(settings)]
    try:
        metadata = client.list_topics(timeout=settings.kafka_timeout_s)
    except KafkaException as error:
        raise log.unreachable(settings, "listing topics", error) from error
    # a topic without partitions is being created
    existing = [
        name for name in names if name in metadata.topics and metadata.topics[name].partitions
    ]
    configs = _configs(settings, client, existing)
    described = {
        name: TopicDescription(
            [
                metadata.topics[name].partitions[number].replicas
                for number in sorted(metadata.topics[name].partitions)
            ],
            config,
        )
        for name, config in zip(existing, configs, strict=True)
    }
    return differences(settings, described, list(metadata.brokers))


def _configs(
    settings: Settings, client: AdminClient, topics: Sequence[str]
) -> list[dict[str, str] | None]:
    """The settings of each topic; None where the broker does not describe them."""
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    configs: list[dict[str, str] | None] = []
    refused: dict[str, str] = {}
    futures = (
        client.describe_configs(resources, request_timeout=settings.kafka_timeout_s)
        if resources
        else {}
    )
    for resource in resources:
        try:
            entries = futures[resource].result()
            configs.append(
                {name: entry.value for name, entry in entries.items() if entry.value is not None}
            )
        except KafkaException as error:
            if error.args[0].code() in (
                KafkaError._TRANSPORT,
                KafkaError._TIMED_OUT,
                KafkaError.REQUEST_TIMED_OUT,
            ):
                raise log.unreachable(
                    settings, f"describing the topic {resource.name}", error
                ) from error
            refused[resource.name] = error.args[0].str()
            configs.append(None)
    if refused:
        _log.warning(
            "topic_settings_not_described",
            topics=sorted(refused),
            error=next(iter(refused.values())),
        )
    return configs
