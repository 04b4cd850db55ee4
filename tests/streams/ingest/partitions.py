"""Partitions as placed, and messages as a consumer answers them, for tests of ingest."""

from __future__ import annotations

from typing import NamedTuple

from core.codec import encode_json
from core.dedup import Dedup
from core.settings import Settings
from core.types import Interaction
from store.state.apply.pending import Mark, PendingPopularity
from store.state.apply.positions import Position
from streams.ingest.partition import EntryPartition, InteractionPartition
from streams.ingest.placement import Placement

WINDOW = 100


class Message(NamedTuple):
    """A message as a consumer answers it."""

    topic_name: str
    number: int
    at: int
    content: bytes
    key_bytes: bytes = b"u"

    def topic(self) -> str:
        return self.topic_name

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_760_000_000_000

    def key(self) -> bytes:
        return self.key_bytes

    def value(self) -> bytes:
        return self.content

    def error(self) -> None:
        return None


def placement(topic: str, number: int, position: int, low: int = 0) -> Placement:
    return Placement(topic, number, None, Position(position, None), low, high=position)


def interactions(
    settings: Settings,
    number: int,
    position: int = 0,
    popularity: PendingPopularity | None = None,
    low: int = 0,
) -> InteractionPartition:
    """A partition of the interactions topic; by default, all its popularity is in Redis."""
    if popularity is None:
        popularity = PendingPopularity(settings.use_cases, 30.0, Mark(position, position))
    topic = settings.interactions_topic
    return InteractionPartition(placement(topic, number, position, low), Dedup(WINDOW), popularity)


def items(settings: Settings) -> EntryPartition:
    return EntryPartition(placement(settings.items_topic, 0, 0), "item")


def users(settings: Settings) -> EntryPartition:
    return EntryPartition(placement(settings.users_topic, 0, 0), "user")


def message(partition: InteractionPartition, offset: int, event_id: str | None = None) -> Message:
    """An interaction at an offset of the partition."""
    event_id = event_id or f"e{partition.number}-{offset}"
    content = encode_json(Interaction(event_id, "u", "startup-1", "view", 1.76e9))
    return Message(partition.topic, partition.number, offset, content)


def messages(partition: InteractionPartition, count: int) -> list[Message]:
    """The next `count` interactions of the partition."""
    first = max(partition.read, partition.start)
    return [message(partition, offset) for offset in range(first, first + count)]
