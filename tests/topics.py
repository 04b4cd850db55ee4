"""Changes topics as an operator or retention does, and reads whole topics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from core.settings import Settings
from store.log import client as log
from store.log.reader import LogReader
from store.log.topics import needs
from tests.support import eventually


def messages(settings: Settings, topic: str) -> Iterator[Any]:
    """Every message of `topic`, in the order of each partition."""
    with LogReader(settings, "test") as reader:
        yield from reader.read_topic(topic)


def trim(settings: Settings, topic: str, upto: Mapping[int, int]) -> None:
    """Delete the records of `topic` below `upto` (partition -> offset), as retention does.

    Needs Apache Kafka.
    """
    client = log.admin(settings)  # closing it would cancel the requests
    for future in client.delete_records(
        [TopicPartition(topic, *place) for place in upto.items()]
    ).values():
        future.result(30)


def use_retention(settings: Settings, topic: str) -> None:
    """Give a compacted topic the cleanup policy `delete`."""
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    client = log.admin(settings)
    for future in client.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
    ).values():
        future.result(30)


def recreate(settings: Settings, topic: str, **config: str) -> None:
    """Delete `topic` and create it again with the partitions of the settings.

    `config`: settings of the topic that differ from those that Eddyline gives it.
    """
    client = log.admin(settings)
    client.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in client.list_topics(timeout=30).topics, "the topic is gone")
    spec = next(spec for spec in needs.specs(settings) if spec.name == topic)
    new = NewTopic(topic, settings.topic_partitions, 1, config={**spec.config, **config})
    client.create_topics([new])[topic].result(30)
    eventually(lambda: topic in client.list_topics(timeout=30).topics, "the topic is back")
