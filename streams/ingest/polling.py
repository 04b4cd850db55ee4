"""Polls the consumer: a message that comes alone is answered at once, with many a second those of
some milliseconds are answered together.
"""

from __future__ import annotations

import time
from typing import NamedTuple, cast

from confluent_kafka import Consumer

from streams.ingest.messages import Message

GATHER_S = 0.008
"""Shortest time in seconds from one answer to the next: with thousands of events a second, those of
8 ms share one transaction of all partitions, which takes half the processor time of a transaction
for each.
"""

TopicPartition = tuple[str, int]
"""Topic, and number of the partition."""


class Poll(NamedTuple):
    """Messages by partition, in the order of the log; and what is none: errors of the client, and
    ends of partitions.
    """

    messages: dict[TopicPartition, list[Message]]
    errors: list[Message]


class Poller:
    """Belongs to the consumer's thread."""

    def __init__(self, consumer: Consumer, most: int) -> None:
        """`most`: messages that are gathered at once."""
        self._consumer, self._most = consumer, most
        self._answered_at = 0.0  # time.monotonic()
        self._has_more = False

    def poll(self, wait_s: float) -> Poll:
        """Wait for a message, and take what else is fetched by then. Empty after `wait_s` seconds
        without one.
        """
        messages: dict[TopicPartition, list[Message]] = {}
        errors: list[Message] = []
        topic, number = "", -1
        of_partition: list[Message] = []
        for message in self._consume(wait_s):
            if message.error() is not None:
                errors.append(message)
                continue
            # most often, many messages of a partition follow each other
            if message.partition() != number or message.topic() != topic:
                topic, number = message.topic(), message.partition()
                of_partition = messages.setdefault((topic, number), [])
            of_partition.append(message)
        return Poll(messages, errors)

    def _consume(self, wait_s: float) -> list[Message]:
        first = cast("list[Message]", self._consumer.consume(1, wait_s))
        if not first or first[0].error() is not None:  # there is no event to gather others for
            return first
        if not self._has_more:
            time.sleep(max(0.0, self._answered_at + GATHER_S - time.monotonic()))
        self._answered_at = time.monotonic()
        more = cast("list[Message]", self._consumer.consume(self._most, 0))
        self._has_more = len(more) == self._most
        return [*first, *more]
