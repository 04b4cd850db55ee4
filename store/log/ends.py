"""Finds the first offset of a partition and its end: the offset after its last record."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.errors import LogUnavailable
from core.settings import Settings
from store.log import client as log

_UNKNOWN = -1
"""The cached end of a partition before the first answer to a fetch; any negative number."""


def ends(
    settings: Settings, consumer: Consumer, topic: str, partition: int, position: int
) -> tuple[int, int]:
    """First offset and end of a partition that is to be read from `position`.

    Where the list-offsets request answers an end before `position`, a fetch decides: the Tansu
    broker lists the first offset of its last batch instead of the end. Raises LogUnavailable.
    """
    action = f"asking for the offsets of {topic}/{partition}"
    deadline = time.monotonic() + settings.kafka_timeout_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=settings.kafka_timeout_s
            )
            break
        # TypeError: the client returns None when the request times out
        except (KafkaException, TypeError) as error:
            if _is_passing(error) and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise log.unreachable(settings, action, error) from error
    return low, high if position <= high else max(
        high, _fetched_end(settings, topic, partition, max(low, position - 1), action)
    )


def _is_passing(error: KafkaException | TypeError) -> bool:
    """Whether the partition has no leader yet, because its topic is new or a broker restarted."""
    passing = (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    )
    return isinstance(error, KafkaException) and error.args[0].code() in passing


def known_end(consumer: Consumer, topic: str, partition: int) -> int | None:
    """The end of an assigned partition at the consumer's latest fetch; None before the first."""
    answer = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
    return answer[1] if answer is not None and answer[1] > _UNKNOWN else None


def _fetched_end(settings: Settings, topic: str, partition: int, position: int, action: str) -> int:
    """The end in the answer to a fetch at `position`; 0 when the broker has no such offset."""
    probe = Consumer(log.consumer_config(settings, f"{settings.ingest_group}-probe"))
    try:
        probe.assign([TopicPartition(topic, partition, position)])
        deadline = time.monotonic() + settings.kafka_timeout_s
        while time.monotonic() < deadline:
            message = probe.poll(0.05)
            error = None if message is None else message.error()
            if error is not None and error.code() in (
                KafkaError._AUTO_OFFSET_RESET,
                KafkaError.OFFSET_OUT_OF_RANGE,
            ):
                return 0
            end = known_end(probe, topic, partition)
            if end is not None:
                return end
    except KafkaException as error:
        raise log.unreachable(settings, action, error) from error
    finally:
        probe.close()
    raise LogUnavailable(
        f"Kafka at {settings.kafka_bootstrap_servers} did not answer within "
        f"{settings.kafka_timeout_s:g} s while {action}"
    )
