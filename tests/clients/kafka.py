"""Reads the log with a separate consumer, and computes the partition that Kafka's Java
clients choose.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from core.settings import Settings
from store.log.client import consumer_config
from tests.support import eventually


def messages(settings: Settings, topic: str, count: int) -> list[Message]:
    """The first messages of `topic`, partition by partition, once there are `count`.

    Raises AssertionError when they do not arrive.
    """
    consumer = Consumer(
        consumer_config(settings, f"read-{topic}") | {"auto.offset.reset": "earliest"}
    )
    records: list[Message] = []
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])

        def read() -> Any:
            records.extend(
                message for message in consumer.consume(1000, 0.2) if message.error() is None
            )
            return len(records) >= count

        eventually(read, f"{count} messages in {topic}")
    finally:
        consumer.close()
    return sorted(records, key=lambda message: (message.partition(), message.offset()))


def count(settings: Settings, topic: str) -> int:
    """How many messages `topic` has."""
    consumer = Consumer(consumer_config(settings, f"count-{topic}"))
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        places = [TopicPartition(topic, partition) for partition in partitions]
        return sum(consumer.get_watermark_offsets(place, timeout=30)[1] for place in places)
    finally:
        consumer.close()


def java_partition(key: bytes, partitions: int) -> int:
    """Where Kafka's Java clients put a key: org.apache.kafka.common.utils.Utils.murmur2, made
    positive, modulo.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Austin Appleby's MurmurHash2, 32 bits, with Kafka's seed."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    value = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for place in range(0, whole, 4):
        block = int.from_bytes(data[place : place + 4], "little") * multiplier & mask
        block = (block ^ (block >> 24)) * multiplier & mask
        value = (value * multiplier & mask) ^ block
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ (value >> 13)) * multiplier & mask
    return value ^ (value >> 15)
