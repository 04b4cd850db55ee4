"""Where a partition of the log begins and ends."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.errors import LogUnavailable
from core.settings import Settings
from store.log import client as log

_UNKNOWN = -1
"""Below 0: the client has had no answer to a fetch yet."""


def ends(
    settings: Settings, consumer: Consumer, topic: str, partition: int, position: int
) -> tuple[int, int]:
    """First offset, and the offset after the last one, of a partition that somebody wants to read
    from `position`.

    The list-offsets request is asked first. Where it says that the log ends before `position`, a
    fetch decides: the Tansu broker lists the first offset of its last batch instead of the end.
    Raises LogUnavailable.
    """
    what = f"asking for the offsets of {topic}/{partition}"
    deadline = time.monotonic() + settings.kafka_timeout_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=settings.kafka_timeout_s
            )
            break
        # None, thus a TypeError, is its answer when the time is over
        except (KafkaException, TypeError) as error:
            if _passes(error) and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise log.unreachable(settings, what, error) from error
    return low, high if position <= high else max(
        high, _fetched_end(settings, topic, partition, max(low, position - 1), what)
    )


def _passes(error: KafkaException | TypeError) -> bool:
    """Whether a partition is only finding its leader, as right after its topic was made or a broker
    came back.
    """
    passing = (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    )
    return isinstance(error, KafkaException) and error.args[0].code() in passing


def known_end(consumer: Consumer, topic: str, partition: int) -> int | None:
    """The end of an assigned partition as of the consumer's latest fetch; None before its first
    one.
    """
    answer = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
    return answer[1] if answer is not None and answer[1] > _UNKNOWN else None


def _fetched_end(settings: Settings, topic: str, partition: int, position: int, what: str) -> int:
    """The end that a fetch at `position` tells of; 0 when the broker says that there is no such
    offset.
    """
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
        raise log.unreachable(settings, what, error) from error
    finally:
        probe.close()
    raise LogUnavailable(
        f"Kafka at {settings.kafka_bootstrap_servers} did not answer within "
        f"{settings.kafka_timeout_s:g} s while {what}"
    )
