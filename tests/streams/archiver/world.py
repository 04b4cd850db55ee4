"""Publishes events, and compares the archive with the log."""

from __future__ import annotations

from confluent_kafka import Consumer

from core.settings import Settings
from core.types import Interaction
from store.archive.archive import Archive
from store.log import client as log
from store.log import ends as log_ends
from store.log.producer import Producer

BEYOND = 10**9
"""No log of a test is this long, so that a fetch confirms the end (see store/log/ends.py)."""


def publish(settings: Settings, count: int, start: int = 0) -> None:
    with Producer(settings) as producer:
        for number in range(start, start + count):
            producer.interaction(
                Interaction(
                    f"e{number}", f"u{number % 97}", f"i{number % 31}", "view", 1.7e9 + number
                )
            )


def ends(settings: Settings) -> dict[int, int]:
    """The end of each partition that holds any record."""
    consumer = Consumer(log.consumer_config(settings, "ends"))
    try:
        offsets = {
            partition: log_ends.ends(
                settings, consumer, settings.interactions_topic, partition, BEYOND
            )[1]
            for partition in range(settings.topic_partitions)
        }
    finally:
        consumer.close()
    return {partition: end for partition, end in offsets.items() if end}


def archived(settings: Settings) -> dict[int, list[int]]:
    """The archived offsets of each partition, in the order of the archive."""
    offsets: dict[int, list[int]] = {}
    for table in Archive(settings.archive_url).read(settings.interactions_topic):
        for partition, offset in zip(
            table.column("partition").to_pylist(), table.column("offset").to_pylist(), strict=True
        ):
            offsets.setdefault(partition, []).append(offset)
    return offsets


def assert_every_offset_once(settings: Settings) -> None:
    assert archived(settings) == {
        partition: list(range(end)) for partition, end in ends(settings).items()
    }
