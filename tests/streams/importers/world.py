"""Runs imports and reads back what they sent."""

from __future__ import annotations

from typing import Any

import msgspec

from core.settings import Settings
from tests.topics import messages


def sent(settings: Settings, topic: str | None = None) -> list[dict[str, Any]]:
    """Every message of a topic, decoded, in the order of each partition."""
    topic = topic or settings.interactions_topic
    return [msgspec.json.decode(message.value()) for message in messages(settings, topic)]


def with_one_partition(settings: Settings) -> Settings:
    """Settings with which the log has one order."""
    return settings.model_copy(update={"topic_partitions": 1})


def essential_fields(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """User, item, event type, timestamp and value of each event."""
    return [
        (
            event["user_id"],
            event["item_id"],
            event["event_type"],
            event["timestamp"],
            event.get("value"),
        )
        for event in events
    ]
