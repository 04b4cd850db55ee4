"""Lists the processes that consume: the members of consumer groups, as the broker sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from core.errors import LogUnavailable
from core.settings import Settings
from store.log import client as log

_RUNNING = (
    ConsumerGroupState.STABLE,
    ConsumerGroupState.PREPARING_REBALANCING,
    ConsumerGroupState.COMPLETING_REBALANCING,
)
UNNAMED = "seen by the broker"
"""Name of the members of a group whose broker says that there are some, not which (Tansu)."""


class Groups:
    """The members of groups. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Connects nothing before the first `members`."""
        self._settings = settings
        self._client: AdminClient | None = None

    def members(self, groups: Sequence[str]) -> dict[str, list[str]]:
        """By group: address and number of partitions of each member.

        A group that the broker does not describe (no permission) is left out. Raises
        LogUnavailable when it describes none.
        """
        if self._client is None:
            self._client = log.admin(self._settings)
        answers = self._client.describe_consumer_groups(
            list(groups), request_timeout=self._settings.kafka_timeout_s
        )
        members: dict[str, list[str]] = {}
        cause: KafkaException | None = None
        for group, answer in answers.items():
            try:
                members[group] = _names(answer.result())
            except KafkaException as error:
                cause = error
        if not members and cause is not None:
            raise LogUnavailable(f"the broker describes no consumer group: {cause}") from cause
        return members


def _names(group: Any) -> list[str]:
    names = [
        f"{member.host.strip('/')}, {len(member.assignment.topic_partitions)} partitions"
        for member in group.members
    ]
    return names or ([UNNAMED] if group.state in _RUNNING else [])
