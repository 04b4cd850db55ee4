"""Writes dead letters as ingest does."""

from __future__ import annotations

from core import codec
from core.errors import BadEvent
from core.settings import Settings
from store.log import dead_letters
from store.log.dead_letters import Record
from store.log.message import LogMessage
from store.log.producer import Producer

VALID = {
    "event_id": "e1",
    "user_id": "u1",
    "item_id": "i1",
    "event_type": "view",
    "timestamp": 1_790_000_000,
}
BROKER_TIME = 1_800_000_000.0
"""Broker time of the message at offset 0; one second later for each further offset."""


def write(settings: Settings, *records: Record) -> None:
    """Write records to the dead-letter topic."""
    with Producer(settings) as producer:
        for record in records:
            producer.raw(settings.dlq_topic, record.key, record.value, headers=record.headers)


def letter_of(settings: Settings, offset: int, value: bytes, topic: str | None = None) -> Record:
    """The dead letter of an invalid message of user u1 at `offset` of partition 0."""
    source = topic or settings.interactions_topic
    message = LogMessage(source, 0, offset, BROKER_TIME + offset, b"u1", value)
    try:
        if source == settings.interactions_topic:
            codec.decode_interaction(value, BROKER_TIME, settings.use_cases)
        else:
            codec.decode_item(value, BROKER_TIME)
    except BadEvent as error:
        return dead_letters.encode(message, error)
    raise AssertionError(f"{value!r} is a valid message")
