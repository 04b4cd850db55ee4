"""Lists the processes that consume: the members of consumer groups, as the broker sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from core.settings import Settings
from store.log import client as log


class Groups:
    """The members of groups. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Connects nothing before the first `members`."""
        self._settings = settings
        self._client: AdminClient | None = None

    def members(self, groups: Sequence[str]) -> dict[str, list[str]]:
        """By group: address and number of partitions of each member.

        A group without members, or that this login may not describe, has none; so has every group
        of a broker that lists no groups (Tansu). Raises LogUnavailable.
        """
        if self._client is None:
            self._client = log.admin(self._settings)
        return {group: self._members(self._client, group) for group in groups}

    def _members(self, client: AdminClient, group: str) -> list[str]:
        # deprecated for `describe_consumer_groups`, which aborts the process when the connection to
        # the coordinator is lost before its answer (librdkafka issue 4605)
        try:
            descriptions: Any = client.list_groups(group, timeout=self._settings.kafka_timeout_s)
        except KafkaException as error:
            raise log.unreachable(
                self._settings, f"asking for the members of {group}", error
            ) from error
        return [
            f"{member.client_host.strip('/')}, {partitions(member.assignment)} partitions"
            for description in descriptions
            for member in description.members
        ]


def partitions(assignment: bytes) -> int:
    """How many partitions a member is assigned, by what its group's leader wrote; untrusted.

    Layout (big-endian): version int16, number of topics int32, and for each its name (int16 length,
    bytes) and its partitions (int32 number, int32 each):
    https://kafka.apache.org/protocol#protocol_consumer_group, `ConsumerProtocolAssignment`.
    """
    topics, at, count = int.from_bytes(assignment[2:6]), 6, 0
    while topics and at < len(assignment):
        at += 2 + int.from_bytes(assignment[at : at + 2])
        number = int.from_bytes(assignment[at : at + 4])
        at += 4 + 4 * number
        topics, count = topics - 1, count + number
    return count
